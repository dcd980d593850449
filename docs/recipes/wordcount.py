"""Work for the recipe on Scrapy: slow parsing, in pure Python."""

from collections import Counter
from html.parser import HTMLParser


class Text(HTMLParser):
    """Collects the words of a page."""

    def __init__(self):
        super().__init__()
        self.words = Counter()

    def handle_data(self, data):
        self.words.update(data.lower().split())


def countWords(html):
    """Count the words of a page."""
    text = Text()
    text.feed(html)
    return dict(text.words)


def pickTopics(words, most=3):
    """Choose the most frequent ones."""
    return sorted(words, key=lambda word: (-words[word], word))[:most]
