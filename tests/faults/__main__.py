from tests.faults import PAGE, page

PAGE.write_text(page())
print(PAGE)
