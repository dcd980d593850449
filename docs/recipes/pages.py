"""A spider that has pages parsed by child interpreters."""

import scrapy
from wordcount import countWords

from asynqueue import ProcessQueue


class PagesSpider(scrapy.Spider):
    """Follows all links of a site, and counts words."""

    name = "pages"
    custom_settings = {"ITEM_PIPELINES": {"topics.TopicsPipeline": 300}}

    def __init__(self, site, **kw):
        super().__init__(start_urls=[site], **kw)

    @classmethod
    def from_crawler(cls, crawler, *args, **kw):
        spider = super().from_crawler(crawler, *args, **kw)
        spider.q = ProcessQueue(2)
        crawler.signals.connect(spider.shutDown, signal=scrapy.signals.spider_closed)
        return spider

    async def shutDown(self):
        await self.q.shutdown(timeout=10)

    async def parse(self, response):
        for link in response.css("a"):
            yield response.follow(link)
        words = await self.q.call(countWords, response.text, timeout=30)
        yield {"url": response.url, "words": words}
