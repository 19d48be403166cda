// The studio in a real browser: what a newcomer does first.
//
// Run by tests/run, which says where the modules, the browser and the studio are.

import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { Fixture, LARGE, TIMEOUT, barriers } from "./fixture.mjs";

let fixture;
let page;

before(async () => { fixture = await Fixture.open(); });
after(async () => { await fixture?.close(); });
beforeEach(async () => { page = await fixture.page("/"); });
afterEach(async () => {
  // One test that fails must not stop the next.
  await fixture.pause(false);
  await page.context().close();
  assert.deepEqual(page.complaints, [], "the console is quiet");
});

const painter = (fn) => page.locator(`button[data-fn="${fn}"]`);
const cards = (state) => page.locator(`.card[data-state="${state}"]`);

/** Waits until so many cards are in a state. */
async function until(state, number) {
  await page.waitForFunction(
    ([state, number]) => document.querySelectorAll(`.card[data-state="${state}"]`).length === number,
    [state, number],
    { timeout: TIMEOUT },
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
  await order("the sea", LARGE, 0, 2, 0);
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
  await order("a storm", LARGE, 0, 0, 2, 2);
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
  await order("a slow one", LARGE, 0);
  await page.waitForFunction(() => document.querySelector(".card progress")?.value > 0.2);
  await until("done", 1);
});

test("an empty order is refused in words", async () => {
  await order("   ", 384, 0);
  assert.equal(await page.locator("#error").innerText(), "Say what to paint first.");
  assert.equal(await page.locator(".card").count(), 0);
});

test("words are shown as they are, whatever they look like", async () => {
  const words = '<img src=x onerror="console.error(1)"> & "friends"';
  await order(words, 384, 1);
  await until("done", 1);
  assert.equal(await page.locator(".card .words").innerText(), words);
});

test("a reload in mid-run keeps the place in line, and the gallery", async () => {
  await order("a picture that stays", 384, 1);
  await until("done", 1);
  await order("one of four", LARGE, 0, 2, 0, 2);
  await until("running", 2);
  await until("waiting", 2);
  await page.reload();
  // Where they were, with nothing ordered anew.
  await until("done", 1);
  await until("running", 2);
  await until("waiting", 2);
  assert.match(await cards("waiting").first().locator(".place").innerText(), /^2\n1 ahead/);
  await until("done", 5);
  assert.equal(await page.locator(".card").count(), 5);
  await page.reload();
  await until("done", 5);
});

test("a reload in mid-flood sends what was not sent yet", async () => {
  // However long the orders take to come in, none is painted meanwhile.
  await fixture.pause(true);
  // The first join only is on its way then.
  await page.evaluate(() => { document.querySelector("#flood").click(); location.reload(); });
  await until("waiting", 50);
  assert.equal(await page.locator(".card").count(), 50);
  await page.locator("#cancel-waiting").click();
  await until("cancelled", 50);
  await fixture.pause(false);
});

test("two windows see each other, and a flood waits", async () => {
  const other = await fixture.page("/");
  await fixture.pause(true);
  await page.locator("#flood").click();
  await until("waiting", 50);
  await other.locator("#easels li", { hasText: /[5-9]\d waiting/ }).waitFor();
  await fixture.pause(false);
  await other.locator("#easels li", { hasText: "for another visitor" }).first().waitFor();
  await page.locator("#easels li", { hasText: "for you" }).first().waitFor();
  await page.locator("#cancel-waiting").click();
  await until("waiting", 0);
  await other.locator("#easels li", { hasText: /^In line, all visitors0 waiting/ }).waitFor();
  assert.deepEqual(other.complaints, []);
  await other.context().close();
  await until("running", 0);
});

test("nothing keeps anybody out", async () => {
  await order("a fox", LARGE, 0, 1, 2);
  await until("waiting", 1);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    assert.deepEqual(await barriers(page), [], colorScheme);
  }
  await until("done", 3);
});

// A picture for the README, and for whoever wants to look: SCREENSHOTS names a folder.
test("screenshots", { skip: !process.env.SCREENSHOTS }, async () => {
  await mkdir(process.env.SCREENSHOTS, { recursive: true });
  for (const words of ["a lighthouse at dusk", "the sea in May"]) {
    await order(words, 640, 0, 1, 2);
    await page.waitForFunction(() => document.querySelectorAll('.card:not([data-state="done"])').length === 0);
  }
  await order("snow over the harbour", LARGE, 0, 2, 1);
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
