"""An item pipeline that has items processed by child interpreters."""

from wordcount import pickTopics

from asynqueue import ProcessQueue


class TopicsPipeline:
    """Adds the topics of a page."""

    def open_spider(self):
        self.q = ProcessQueue(1)

    async def process_item(self, item):
        item["topics"] = await self.q.call(pickTopics, item["words"])
        return item

    async def close_spider(self):
        await self.q.shutdown()
