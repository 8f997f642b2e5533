def pytest_addoption(parser):
    parser.addoption("--no-skips", action="store_true", help="end with an error if a test was skipped")


def pytest_sessionfinish(session):
    skipped = session.config.pluginmanager.get_plugin("terminalreporter").stats.get("skipped")
    if skipped and session.config.getoption("no_skips", False):
        session.exitstatus = 1
