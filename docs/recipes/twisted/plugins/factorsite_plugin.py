"""Has twist and twistd know the site."""

from twisted.application.service import ServiceMaker

factors = ServiceMaker("Factors", "factorsite", "Factor numbers.", "factors")
