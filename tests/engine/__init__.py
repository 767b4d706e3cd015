import pytest

# Failures inside the shared scheduler harness are shown like those of tests.
pytest.register_assert_rewrite("tests.engine.bare_scheduler")
