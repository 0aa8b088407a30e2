from tests.faults import PAGE, page


def test_the_page_of_faults_is_current():
    assert PAGE.read_text() == page(), "render it by `python -m tests.faults`"
