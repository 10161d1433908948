"""One person's whole way, by keyboard alone on a phone: sign up, confirm, pause, unsubscribe, see it all, erase."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.e2e.living import House, Keyboard, heading

_SERIES = """
SELECT enrollment.state, enrollment.ended_reason
  FROM enrollment
  JOIN campaign ON campaign.id = enrollment.campaign_id
  JOIN subscriber ON subscriber.id = enrollment.subscriber_id
 WHERE campaign.kind = 'drip' AND subscriber.address = :address
"""
_CONSENTS = """
SELECT consent.action, wording.words
  FROM consent
  JOIN wording ON wording.version = consent.wording_version
  JOIN subscriber ON subscriber.id = consent.subscriber_id
 WHERE subscriber.address = :address
"""


@pytest.mark.parametrize(
    ("width", "scripts"), [(375, True), (320, False)], ids=["375 px", "320 px and without JavaScript"]
)
def test_from_sign_up_to_erasure_by_keyboard(living_house: House, browser: Browser, width: int, scripts: bool) -> None:
    house, address = living_house, f"way-{width}@path.example"
    context = browser.new_context(viewport={"width": width, "height": 720}, java_script_enabled=scripts)
    context.set_default_timeout(15_000)
    page = context.new_page()

    page.goto(f"{house.url}/s/series-request")
    assert page.locator("input:checked").count() == 0, "nothing is ticked beforehand"
    keys = Keyboard(page)
    keys.to("Your email address")
    page.keyboard.type(address, delay=180)  # who is faster than 3 s is asked to press once more
    form = next(form for form in house.installation.site.forms if form.name == "series-request")
    keys.to(form.consent.split(",")[0])
    page.keyboard.press("Space")
    keys.press("Send me the confirmation")
    expect(heading(page)).to_have_text("Check your email")
    assert house.query(_SERIES, address=address) == []

    page.goto(house.link(address, "k"))
    Keyboard(page).press("Yes, email me")
    expect(heading(page)).to_have_text("Your address is confirmed")
    consents = house.query(_CONSENTS, address=address)
    assert consents == [("give", form.consent)]

    house.later(days=4)
    preferences = house.link(address, "p", count=2).partition("?")[0]
    page.goto(preferences)
    keys = Keyboard(page)
    keys.choose("As planned", "Pause everything")
    keys.press("Save")
    expect(page.get_by_role("status")).to_contain_text("Saved")
    expect(page.get_by_role("heading", name="Paused until")).to_be_visible()
    mailed = len(house.mails(address))
    house.later(days=5)
    assert len(house.mails(address)) == mailed, "nothing comes during the pause"

    Keyboard(page).press("Unsubscribe from everything")
    expect(heading(page)).to_have_text("You are unsubscribed")
    assert house.query(_SERIES, address=address) == [("exited", "unsubscribed")]

    page.goto(preferences)
    Keyboard(page).press("See, download or erase")
    expect(heading(page)).to_have_text("What we keep about you")
    expect(page.locator("body")).to_contain_text(form.consent)
    expect(page.locator("body")).to_contain_text("you unsubscribed")
    with page.expect_download() as download:
        Keyboard(page).to("Download it all")
        page.keyboard.press("Enter")
    assert address in download.value.path().read_text()
    keys = Keyboard(page)
    keys.stops.clear()
    keys.press("Erase it")
    expect(heading(page)).to_have_text("Erase what we keep about you?")
    Keyboard(page).press("Erase my data")
    expect(heading(page)).to_have_text("Your data is erased")
    assert house.query("SELECT 1 FROM subscriber WHERE address = :address", address=address) == []
    for path in ("", "/data", "/data.json", "/erase"):
        answer = page.goto(preferences + path)
        assert answer is not None
        assert answer.status == 410
        expect(heading(page)).to_have_text("There is nothing here any more")
    context.close()
