// The dashboard in a real browser: what an operator looks at, and does.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, before, beforeEach, test } from "node:test";

import { Fixture, PASSWORD, barriers } from "./fixture.mjs";

const httpCredentials = { username: "operator", password: PASSWORD };

let fixture;
let page;
/** The events of a test, to be given up after it. */
let session;
let joined;

before(async () => { fixture = await Fixture.open(); });
after(async () => { await fixture?.close(); });

beforeEach(async () => {
  session = randomBytes(16).toString("hex");
  joined = [];
  page = await fixture.page("/queues", { httpCredentials });
});

afterEach(async () => {
  for (const event_id of joined) await post("/gradio_api/cancel", { session_hash: session, event_id });
  await field("running", /^0 of/);
  await field("waiting", /^0$/);
  await page.context().close();
  assert.deepEqual(page.complaints, [], "the console is quiet");
});

async function post(path, body) {
  const response = await fetch(fixture.address + path, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
  });
  return response.json();
}

/** Orders pictures that take a while. */
async function order(number) {
  for (let n = 0; n < number; n++) {
    const { event_id } = await post("/gradio_api/queue/join", { data: ["a slow one", 1024], fn_index: n % 3, session_hash: session });
    joined.push(event_id);
  }
}

const gpu = () => page.getByLabel("Queue gpu_queue", { exact: true });

/** Waits until the dashboard says so. */
async function field(name, words) {
  await gpu().locator(`dd.${name}`, { hasText: words }).waitFor();
}

async function sure(yes) {
  await page.getByRole("dialog").getByRole("button", { name: yes }).click();
}

async function setLimit(limit) {
  await gpu().getByLabel("Limit of gpu_queue, empty for unlimited").fill(String(limit));
  await gpu().getByRole("button", { name: "Set the limit" }).click();
  await sure("Change it");
}

test("who has no credentials, or wrong ones, sees nothing", async () => {
  for (const options of [{}, { httpCredentials: { username: "operator", password: "wrong" } }]) {
    const stranger = await fixture.page("/queues", options).catch((error) => error);
    // Chromium shows no page where nobody answers its question.
    if (stranger instanceof Error) {
      assert.match(stranger.message, /INVALID_AUTH|401/);
      continue;
    }
    assert.equal(stranger.answer.status(), 401);
    assert.ok(!(await stranger.content()).includes("gpu_queue"));
    await stranger.context().close();
  }
  for (const path of ["", "/events", "/snapshot"]) {
    assert.equal((await fetch(`${fixture.address}/queues${path}`)).status, 401);
  }
  assert.ok(!(await page.content()).includes(PASSWORD));
});

test("a saturated id is seen, and with a limit of four, four run", async () => {
  await order(6);
  await field("running", "2 of 2");
  await field("waiting", /^4$/);
  await gpu().locator(".badge", { hasText: "all slots busy" }).waitFor();
  assert.equal(await gpu().locator('.slots li[data-state="busy"]').count(), 2);
  // How far each has got.
  await page.waitForFunction(() => [...document.querySelectorAll('.slots progress')].every((bar) => bar.value > 0.05));
  await setLimit(4);
  await field("running", "4 of 4");
  assert.equal(await gpu().locator('.slots li[data-state="busy"]').count(), 4);
  await setLimit(2);
  await gpu().locator("dd.running", { hasText: "of 2" }).waitFor();
});

test("a pause stops starts, until it is over", async () => {
  await gpu().getByRole("button", { name: "Pause gpu_queue" }).click();
  // Who leaves it leaves it.
  await sure("Leave it");
  assert.equal(await gpu().locator(".badge", { hasText: "paused" }).count(), 0);
  await gpu().getByRole("button", { name: "Pause gpu_queue" }).click();
  await sure("Pause");
  await gpu().locator(".badge", { hasText: "paused" }).waitFor();
  await order(2);
  await field("waiting", /^2$/);
  await field("running", /^0 of/);
  await gpu().getByRole("button", { name: "Resume gpu_queue" }).click();
  await sure("Resume");
  await field("running", "2 of 2");
});

test("an event is cancelled from its slot, and is found among the recent ones", async () => {
  await order(1);
  await gpu().getByRole("button", { name: "Cancel what runs on slot 0" }).click();
  await sure("Cancel it");
  await field("running", /^0 of/);
  const [event] = joined;
  await page.getByLabel("Find").fill(event);
  const row = page.locator("#events tr");
  await row.first().waitFor();
  assert.equal(await row.count(), 1);
  assert.match(await row.innerText(), /cancelled/);
  await page.getByLabel("Outcome").selectOption("completed");
  await page.locator("#no-events", { hasText: "None fits." }).waitFor();
});

test("a limit that makes no sense is refused with a message", async () => {
  await gpu().getByLabel("Limit of gpu_queue, empty for unlimited").fill("0");
  await gpu().getByRole("button", { name: "Set the limit" }).click();
  await page.getByRole("alert").filter({ hasText: "whole number of 1 or more" }).waitFor();
});

test("nothing keeps anybody out", async () => {
  await order(3);
  await field("waiting", /^1$/);
  for (const colorScheme of ["light", "dark"]) {
    await page.emulateMedia({ colorScheme });
    assert.deepEqual(await barriers(page), [], colorScheme);
    await gpu().getByRole("button", { name: "Pause gpu_queue" }).click();
    assert.deepEqual(await barriers(page), [], `${colorScheme}, asked`);
    await page.keyboard.press("Escape");
  }
});

test("what has failed for good is listed, and submitted again", async () => {
  const data = await mkdtemp(join(tmpdir(), "studio-"));
  const studio = await Fixture.open({ data });
  try {
    const dashboard = await studio.page("/queues", { httpCredentials });
    const failed = dashboard.getByRole("region", { name: "Failed for good" }).getByRole("row");
    // The studio paints nothing without a word.
    const order = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ data: ["", 128] }) };
    assert.equal((await fetch(`${studio.address}/gradio_api/call/generate_1`, order)).status, 200);
    await failed.filter({ hasText: "Say what to paint." }).waitFor();
    assert.deepEqual(await barriers(dashboard), []);
    await dashboard.getByRole("button", { name: /^Submit [0-9a-f]{8} again$/ }).click();
    await dashboard.getByRole("dialog").getByRole("button", { name: "Submit it" }).click();
    await failed.filter({ hasText: /as [0-9a-f]{8}$/ }).waitFor();
    // The new event fails as well: two, and the heads of the columns.
    await dashboard.waitForFunction(() => document.querySelectorAll("#failed-events tr").length === 2);
    assert.deepEqual(dashboard.complaints, []);
    await dashboard.context().close();
  } finally {
    await studio.close();
    await rm(data, { recursive: true });
  }
});

// For whoever wants to look: SCREENSHOTS names a folder.
test("screenshots", { skip: !process.env.SCREENSHOTS }, async () => {
  await mkdir(process.env.SCREENSHOTS, { recursive: true });
  for (let n = 0; n < 12; n++) {
    const { event_id } = await post("/gradio_api/queue/join", { data: ["a small one", 200 + 20 * n], fn_index: n % 3, session_hash: session });
    joined.push(event_id);
  }
  await page.waitForFunction(() => document.querySelectorAll("#events tr").length >= 12);
  await order(7);
  await field("waiting", /^5$/);
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: width === 390 ? 844 : 1000 });
      await page.screenshot({ path: join(process.env.SCREENSHOTS, `dashboard-${colorScheme}-${width}.png`) });
    }
  }
});
