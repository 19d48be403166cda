// The studio in a real browser: what a newcomer does first.
//
// Run by tests/run, which says where the modules, the browser and the studio are.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const modules = process.env.BROWSER_MODULES ?? join(root, "target/browser/node_modules");
const program = process.env.STUDIO_BIN ?? join(root, "target/release/examples/studio");
const { chromium } = createRequire(join(modules, "x.js"))("playwright-core");

/** Enough for a picture on a busy machine; a test that passes never waits for it. */
const PATIENCE = 60_000;

let browser;
let studio;
let address;
let page;
let complaints;

before(async () => {
  // Port 0 is any free one; the studio says which.
  studio = spawn(program, ["--port", "0"], { stdio: ["ignore", "pipe", "inherit"], env: { ...process.env, RUST_LOG: "warn" } });
  const lines = createInterface({ input: studio.stdout });
  const [line] = await Promise.race([
    once(lines, "line"),
    once(studio, "exit").then(([code]) => { throw new Error(`the studio ended with ${code}`); }),
  ]);
  address = line.match(/http:\S+/)[0];
  browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
      "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
});

after(async () => {
  await browser?.close();
  if (studio?.exitCode === null) {
    studio.kill("SIGTERM");
    const [code] = await once(studio, "exit");
    assert.equal(code, 0, "the studio stops in good order");
  }
});

beforeEach(async () => {
  page = await browser.newPage({ viewport: { width: 1280, height: 900 } });
  page.setDefaultTimeout(PATIENCE);
  complaints = [];
  page.on("console", (message) => { if (message.type() === "error") complaints.push(message.text()); });
  page.on("pageerror", (error) => complaints.push(String(error)));
  await page.goto(address);
});

afterEach(async () => {
  await page.close();
  assert.deepEqual(complaints, [], "the console is quiet");
});

const painter = (fn) => page.locator(`button[data-fn="${fn}"]`);
const cards = (state) => page.locator(`.card[data-state="${state}"]`);

/** Waits until so many cards are in a state. */
async function until(state, number) {
  await page.waitForFunction(
    ([state, number]) => document.querySelectorAll(`.card[data-state="${state}"]`).length === number,
    [state, number],
    { timeout: PATIENCE },
  );
}

async function order(words, size, ...painters) {
  await page.fill("#prompt", words);
  await page.selectOption("#size", String(size));
  for (const fn of painters) await painter(fn).click();
}

test("each painter paints a picture", async () => {
  await order("a fox", 384, 0, 1, 2);
  await until("done", 3);
  const widths = await page.locator(".card img").evaluateAll(
    (images) => Promise.all(images.map((image) => image.decode().then(() => image.naturalWidth))),
  );
  assert.deepEqual(widths, [384, 384, 384]);
  const sources = await page.locator(".card img").evaluateAll((images) => images.map((image) => image.src));
  assert.equal(new Set(sources).size, 3);
});

test("the third of three waits, and a cancel frees a slot for it", async () => {
  await order("the sea", 896, 0, 2, 0);
  await until("running", 2);
  await until("waiting", 1);
  assert.equal(await cards("waiting").locator(".place").innerText(), "1\nnext in line");
  assert.equal(await page.locator("#painting").innerText(), "2");
  assert.equal(await page.locator("#waiting").innerText(), "1");
  await cards("running").first().getByRole("button", { name: "Cancel" }).click();
  await until("cancelled", 1);
  // The one that waited has taken its place.
  await until("waiting", 0);
  await until("done", 2);
});

test("one that waits can be cancelled, and those behind it move up", async () => {
  await order("a storm", 896, 0, 0, 2, 2);
  await until("waiting", 2);
  // The newest card stands first: it is the last in line.
  assert.match(await cards("waiting").first().locator(".place").innerText(), /^2\n1 ahead/);
  await cards("waiting").last().getByRole("button", { name: "Cancel" }).click();
  await until("cancelled", 1);
  await cards("waiting").first().locator(".where", { hasText: "next in line" }).waitFor();
  // All at once: each cancel moves the others.
  await page.evaluate(() => {
    const cards = ':is([data-state="running"], [data-state="waiting"])';
    for (const button of document.querySelectorAll(`.card${cards} button`)) button.click();
  });
  await until("running", 0);
  await until("waiting", 0);
});

test("progress is shown while a picture is painted", async () => {
  await order("a slow one", 896, 0);
  await page.waitForFunction(() => document.querySelector(".card progress")?.value > 0.2);
  await until("done", 1);
});

test("an empty order is refused in words", async () => {
  await order("   ", 384, 0);
  assert.equal(await page.locator("#said").innerText(), "Say what to paint first.");
  assert.equal(await page.locator(".card").count(), 0);
});

test("words are shown as they are, whatever they look like", async () => {
  const words = '<img src=x onerror="console.error(1)"> & "friends"';
  await order(words, 384, 1);
  await until("done", 1);
  assert.equal(await page.locator(".card .words").innerText(), words);
});

// A picture for the README, and for whoever wants to look: SCREENSHOTS names a folder.
test("screenshots", { skip: !process.env.SCREENSHOTS }, async () => {
  await mkdir(process.env.SCREENSHOTS, { recursive: true });
  for (const words of ["a lighthouse at dusk", "the sea in May"]) {
    await order(words, 640, 0, 1, 2);
    await page.waitForFunction(() => document.querySelectorAll('.card:not([data-state="done"])').length === 0);
  }
  await order("snow over the harbour", 896, 0, 2, 1);
  await until("waiting", 1);
  await page.waitForFunction(() => [...document.querySelectorAll('.card[data-state="running"] progress')].every((bar) => bar.value > 0.15));
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: width === 390 ? 844 : 1150 });
      await page.screenshot({ path: join(process.env.SCREENSHOTS, `studio-${colorScheme}-${width}.png`) });
    }
  }
});
