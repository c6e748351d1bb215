"""Take the README's pictures of the app, with Chromium, headless.

uv run --group test python examples/screenshots.py examples
"""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

VIEWS = {
    "app-ask.png": ("?q=Who+developed+the+theory+of+relativity%3F&k=2&word=5&map=1", 900, 1180),
    "app-heads.png": (
        "?tab=heads&layer=4&head=1&text=The+animal+didn%27t+cross+the+street+because+it+was+too+tired.",
        1000,
        1500,
    ),
}

folder = Path(sys.argv[1])
program = [sys.executable, "-m", "minqa", "app"]
with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as app, sync_playwright() as playwright:
    address = app.stdout.readline().split()[4].rstrip(";")
    browser = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
    )
    for name, (view, width, height) in VIEWS.items():
        page = browser.new_page(viewport={"width": width, "height": height})
        page.goto(address + view)
        page.locator(".tab .foot").last.wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=folder / name)
    browser.close()
    app.send_signal(signal.SIGINT)
