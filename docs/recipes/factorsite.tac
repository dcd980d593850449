"""
Has twistd run the site: twistd -y factorsite.tac
"""

from factorsite import Options, makeService
from twisted.application.service import Application

application = Application("factors")
makeService(Options()).setServiceParent(application)
