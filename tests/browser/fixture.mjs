// A studio and a browser to look at it: what every suite here needs.
//
// Run by tests/run, which says where the modules, the browser and the studio are.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..");
const modules = process.env.BROWSER_MODULES ?? join(root, "target/browser/node_modules");
const program = process.env.STUDIO_BIN ?? join(root, "target/release/examples/studio");
const require = createRequire(join(modules, "x.js"));

/** Enough for a picture on a busy machine; a test that passes never waits for it. */
export const TIMEOUT = 120_000;

/** The size of a picture that takes long enough to be seen while it is painted. A studio that isn't optimized needs as
 * long for a smaller one. */
export const LARGE = Number(process.env.STUDIO_LARGE ?? 896);

export const PASSWORD = "open sesame";

export class Fixture {
  /** With `data`, orders and pictures are kept in that directory. */
  static async open({ data } = {}) {
    const fixture = new Fixture();
    // Port 0 is any free one; the studio says which.
    fixture.studio = spawn(program, ["--port", "0", ...(data ? ["--data", data] : [])], {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, RUST_LOG: "warn", STUDIO_PASSWORD: PASSWORD },
    });
    const lines = createInterface({ input: fixture.studio.stdout });
    const [line] = await Promise.race([
      once(lines, "line"),
      once(fixture.studio, "exit").then(([code]) => { throw new Error(`the studio ended with ${code}`); }),
    ]);
    fixture.address = line.match(/http:\S+/)[0];
    fixture.browser = await require("playwright-core").chromium.launch({
      executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
      args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync"],
    });
    return fixture;
  }

  async close() {
    await this.browser?.close();
    if (this.studio?.exitCode === null) {
      this.studio.kill("SIGTERM");
      const [code] = await once(this.studio, "exit");
      assert.equal(code, 0, "the studio stops in good order");
    }
  }

  /** Lets nothing start on the easels, or lets them go on: what waits can be counted in peace. */
  async pause(paused) {
    const action = paused ? "pause" : "resume";
    const response = await fetch(`${this.address}/queues/actions`, {
      method: "POST",
      headers: { "content-type": "application/json", authorization: `Basic ${btoa(`operator:${PASSWORD}`)}` },
      body: JSON.stringify({ action, concurrency_id: "gpu_queue" }),
    });
    assert.equal(response.status, 200, action);
  }

  /** A page whose console must be quiet: see `complaints`. */
  async page(path, options = {}) {
    const context = await this.browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
    const page = await context.newPage();
    page.setDefaultTimeout(TIMEOUT);
    page.complaints = [];
    page.on("console", (message) => { if (message.type() === "error") page.complaints.push(message.text()); });
    page.on("pageerror", (error) => page.complaints.push(String(error)));
    page.answer = await page.goto(this.address + path);
    return page;
  }
}

/** What axe-core finds that is serious, or worse. */
export async function barriers(page) {
  await page.evaluate(await readFile(require.resolve("axe-core/axe.min.js"), "utf8"));
  const { violations } = await page.evaluate(() => window.axe.run());
  return violations.filter(({ impact }) => impact === "serious" || impact === "critical")
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target.join(" ")).join(", ")}`);
}
