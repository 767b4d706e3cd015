# SPDX-License-Identifier: Apache-2.0
import pytest

# Failures inside the shared scheduler harness are shown like those of tests.
pytest.register_assert_rewrite("tests.engine.bare_scheduler")
