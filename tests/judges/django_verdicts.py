"""Django's TEST_RUNNER for its own suite: the chosen tests, and how each one ended."""

import unittest

from django.test.runner import DiscoverRunner
from verdicts import chosen, note


class Result(unittest.TextTestResult):
    """Notes each test's verdict; one with parts that fail has one for each of those."""

    def addSuccess(self, test):
        super().addSuccess(test)
        note(test.id(), "passed")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        note(test.id(), "passed")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            note(test.id(), "failed")

    def addFailure(self, test, err):
        super().addFailure(test, err)
        note(test.id(), "failed")

    def addError(self, test, err):
        super().addError(test, err)
        note(test.id(), "failed")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        note(test.id(), "failed")


class Runner(DiscoverRunner):
    def get_resultclass(self):
        return Result

    def build_suite(self, *labels, **how):
        suite = super().build_suite(*labels, **how)
        tests = chosen()
        if tests is None:
            return suite
        return self.test_suite([test for test in suite if test.id() in tests])
