// Gradio's own JavaScript client against the conformance server.
//
// Run by tests/run, which says where the modules and the server are.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { connect as connect_to, createServer } from "node:net";
import { createInterface } from "node:readline";
import { after, afterEach, before, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "../../..");
const modules = process.env.CLIENT_MODULES ?? join(root, "target/clients/js/node_modules");
const program = process.env.CONFORMANCE_BIN ?? join(root, "target/release/examples/conformance");
const { Client, handle_file } = await import(pathToFileURL(join(modules, "@gradio/client/dist/index.js")));

let server;
let address;
let folder;
const clients = [];

before(async () => {
  folder = await mkdtemp(join(tmpdir(), "client-"));
  // Of a server, or a cluster, that runs already.
  if (process.env.CONFORMANCE_URL) {
    address = process.env.CONFORMANCE_URL;
    return;
  }
  server = spawn(program, ["--port", "0"], { stdio: ["ignore", "pipe", "inherit"] });
  const [line] = await once(createInterface({ input: server.stdout }), "line");
  address = line.match(/http:\S+/)[0];
});

after(async () => {
  await rm(folder, { recursive: true });
  if (!server) return;
  server.kill("SIGTERM");
  const [code] = await once(server, "exit");
  assert.equal(code, 0, "the server stops in good order");
});

afterEach(() => {
  for (const client of clients.splice(0)) client.close();
});

async function connect(path = "", options = {}) {
  const client = await Client.connect(address + path, { events: ["data", "status", "log"], ...options });
  clients.push(client);
  return client;
}

const data = async (client, ...call) => (await client.predict(...call)).data;

/** All messages of a job. Copied at once: the client edits values that it has given out. */
async function messages(job) {
  const found = [];
  for await (const message of job) found.push(structuredClone(message));
  return found;
}

/** Reads a job's messages up to one that fits. */
async function until(job, fits) {
  const found = [];
  for await (const message of job) {
    if (fits(message)) return message;
    found.push(message);
  }
  assert.fail(`the job ended without it: ${JSON.stringify(found)}`);
}

test("connect and view the API", async () => {
  const client = await connect();
  const { named_endpoints: named } = await client.view_api();
  for (const name of ["/echo", "/count", "/repeat", "/quick"]) assert.ok(named[name], name);
  for (const name of ["/hidden", "/secret"]) assert.ok(!named[name], name);
  const [text, times, ending] = named["/repeat"].parameters;
  assert.deepEqual([text.parameter_name, text.type, text.parameter_has_default], ["text", "string", false]);
  assert.deepEqual([times.type, times.parameter_default], ["integer", 2]);
  assert.deepEqual([ending.parameter_default, ending.parameter_has_default], [null, true]);
  assert.deepEqual(named["/count"].type, { generator: true, cancel: false });
  assert.equal(await client.reconnect(), "connected");
});

test("arguments by place, by name and left out", async () => {
  const client = await connect();
  assert.deepEqual(await data(client, "/repeat", ["a", 3, "!"]), ["aaa!"]);
  assert.deepEqual(await data(client, "/repeat", ["a"]), ["aa"]);
  assert.deepEqual(await data(client, "/repeat", { text: "a", ending: "?" }), ["aa?"]);
  assert.deepEqual(await data(client, "repeat", { text: "a" }), ["aa"]);
  assert.deepEqual(await data(client, 0, ["a"]), ["a"]);
  assert.deepEqual(await data(client, "/swap", ["a", 2.5]), [2.5, "a"]);
  assert.deepEqual(await data(client, "/swap", { param_0: "a", param_1: 2.5 }), [2.5, "a"]);
  assert.deepEqual(await data(client, "/nothing", []), []);
});

test("wrong arguments are refused in the client's words", async () => {
  const client = await connect();
  await assert.rejects(async () => client.predict("/repeat", {}), /No value provided for required parameter: text/);
  await assert.rejects(async () => client.predict("/repeat", { text: "a", size: 1 }), /not a valid keyword argument/);
  await assert.rejects(client.predict("/repeat", []), /text: invalid type: null/);
  await assert.rejects(client.predict("/repeat", ["a", "often"]), /times: invalid type/);
  await assert.rejects(async () => client.predict("/missing", []), /No endpoint matching/);
});

test("an input is validated before it queues", async () => {
  const client = await connect();
  await assert.rejects(client.predict("/checked", ["a", 10]), ({ code, message }) => {
    assert.equal(code, "validation_error");
    const [text, times] = JSON.parse(message);
    assert.deepEqual([text.is_valid, times.is_valid, times.message], [true, false, "Not so often."]);
    return true;
  });
});

test("status comes in order, and values as they are yielded", async () => {
  const client = await connect();
  const found = await messages(client.submit("/count", [3]));
  const values = found.filter(({ type }) => type === "data").map(({ data }) => data[0]);
  assert.deepEqual(values, ["000", "111", "222", "222"]);
  const stages = found.filter(({ type }) => type === "status").map(({ stage }) => stage);
  // The client begins with a status of its own, then come the line and the start.
  assert.deepEqual(stages, [...Array(3).fill("pending"), ...Array(3).fill("generating"), "complete"]);
  const [waiting] = found.filter(({ position }) => position !== undefined);
  assert.deepEqual([waiting.position, waiting.size], [0, 1]);
});

test("a stream's values are what the handler yielded", async () => {
  const client = await connect();
  const found = await messages(client.submit("/chat", [40]));
  const values = found.filter(({ type }) => type === "data").map(({ data }) => data[0]);
  let text = "";
  const expected = Array.from({ length: 40 }, (_, n) => {
    text += `word${n} `;
    return [{ role: "user", content: "hello" }, { role: "assistant", content: text }];
  });
  assert.deepEqual(values, [...expected, expected.at(-1)]);
});

test("progress and log messages", async () => {
  const client = await connect();
  const found = await messages(client.submit("/prog", ["a"]));
  const progress = found.filter((message) => message.progress_data).map(({ progress_data: [unit] }) => unit);
  assert.deepEqual(progress.at(-1), { index: null, length: null, unit: "steps", progress: 1, desc: "step 2" });
  const [log] = found.filter(({ type }) => type === "log");
  assert.deepEqual([log.log, log.level, log.title, log.duration, log.visible], ["done it", "info", "Info", 10, true]);
});

test("errors", async () => {
  const client = await connect();
  await assert.rejects(client.predict("/fail", ["a"]), (error) => {
    assert.deepEqual([error.message, error.title, error.stage, error.duration], ["no good", "Error", "error", 10]);
    return true;
  });
  // Not meant for the user, so not sent.
  await assert.rejects(client.predict("/boom", ["a"]), { message: "An error occurred" });
  assert.deepEqual(await data(client, "/echo", ["still here"]), ["still here"]);
});

test("a full queue, and cancels while running and waiting", async () => {
  const [first, second, third] = await Promise.all([connect(), connect(), connect()]);
  const running = first.submit("/narrow", [60_000]);
  await until(running, ({ original_msg }) => original_msg === "process_starts");
  const waiting = second.submit("/narrow", [60_000]);
  await until(waiting, ({ position }) => position === 0);
  await assert.rejects(third.predict("/narrow", [1]), /currently busy/);
  await waiting.cancel();
  await running.cancel();
  assert.deepEqual(await data(third, "/narrow", [1]), [1]);
});

test("a cancel leaves the other events of a session alone", async () => {
  const client = await connect();
  const other = client.predict("/sleepy", [500]);
  const job = client.submit("/count", [1000]);
  await until(job, ({ type }) => type === "data");
  await job.cancel();
  await ends(other, "beside a cancel");
  assert.match((await messages(job)).at(-1).message, /cancelled/);
});

test("cancel while iterating, and again from the start", async () => {
  const client = await connect();
  const job = client.submit("/count", [1_000]);
  await until(job, ({ type, data }) => type === "data" && data[0] === "222");
  await job.cancel();
  // What had been sent before the cancel, then the end; never the thousandth.
  const rest = await messages(job);
  assert.ok(rest.length < 900);
  const again = await messages(client.submit("/count", [3]));
  assert.deepEqual(again.filter(({ type }) => type === "data").map(({ data }) => data[0]), ["000", "111", "222", "222"]);
});

test("several events at once on one session's stream, which closes after the last", async () => {
  const client = await connect();
  for (let round = 0; round < 3; round += 1) {
    const jobs = Array.from({ length: 5 }, (_, n) => data(client, "/echo1", [`${round} ${n}`]));
    assert.deepEqual(await Promise.all(jobs), Array.from({ length: 5 }, (_, n) => [`${round} ${n}`]));
    while (client.stream_status.open) await new Promise((resolve) => setTimeout(resolve, 5));
  }
});

test("two sessions don't mix", async () => {
  const [mine, theirs] = await Promise.all([connect(), connect()]);
  const jobs = [2, 3, 4].flatMap((n) => [mine, theirs].map(async (client) => {
    const found = await messages(client.submit("/count", [n]));
    const values = found.filter(({ type }) => type === "data").map(({ data }) => data[0]);
    assert.deepEqual(values.slice(0, -1), Array.from({ length: n }, (_, i) => `${i}`.repeat(3)));
  }));
  await Promise.all(jobs);
});

test("listeners that don't queue", async () => {
  const client = await connect();
  assert.deepEqual(await data(client, "/quick", ["a"]), ["a"]);
  await assert.rejects(client.predict("/quick_fail", ["a"]), /no good/);
  await assert.rejects(client.predict("/quick", [1]), /x: invalid type/);
});

test("visibility", async () => {
  const client = await connect();
  assert.deepEqual(await data(client, "/hidden", ["a"]), ["a"]);
  await assert.rejects(client.predict("/secret", ["a"]), /No endpoint matching/);
});

test("state is kept in a session", async () => {
  const [mine, theirs] = await Promise.all([connect(), connect()]);
  assert.deepEqual(await data(mine, "/remember", ["a"]), [["a"]]);
  assert.deepEqual(await data(theirs, "/remember", ["c"]), [["c"]]);
  assert.deepEqual(await data(mine, "/remember", ["b"]), [["a", "b"]]);
});

test("kept results", async () => {
  const client = await connect();
  const first = await data(client, "/cached", ["js"]);
  const found = await messages(client.submit("/cached", ["js"]));
  assert.deepEqual(found.find(({ type }) => type === "data").data, first);
  assert.equal(found.at(-1).used_cache, "full");
});

test("below a path", async () => {
  const client = await connect("/app");
  assert.deepEqual(await data(client, "/echo", ["a"]), ["a"]);
  assert.equal(client.config.root, `${address}/app`);
});

const text_of = async ({ url }, options) => (await fetch(url, options)).text();

test("a file goes in and another comes out", async () => {
  const client = await connect();
  const path = join(folder, "my report.txt");
  await writeFile(path, "fox");
  const [file] = await data(client, "/shout", [handle_file(path)]);
  assert.equal(await text_of(file), "FOX");
  assert.deepEqual([file.orig_name, file.size, file.meta._type], ["my report.txt", 3, "gradio.FileData"]);
  // As a browser has it, and by its name.
  const blob = new File(["hare"], "hare.txt", { type: "text/plain" });
  const [loud] = await data(client, "/shout", { file: handle_file(blob) });
  assert.deepEqual([await text_of(loud), loud.orig_name], ["HARE", "hare.txt"]);
  // What came out may go in again.
  assert.equal(await text_of((await data(client, "/shout", [loud]))[0]), "HARE");
  assert.equal(await text_of(loud, { headers: { range: "bytes=1-2" } }), "AR");
});

test("files anywhere in inputs and outputs", async () => {
  const client = await connect();
  const files = [new File(["a"], "a.txt"), new Blob([new Uint8Array(5000)])].map(handle_file);
  const [descriptions, found] = await data(client, "/list", [files]);
  assert.equal(descriptions[0], "a.txt: 1");
  assert.match(descriptions[1], /: 5000$/);
  assert.equal(await text_of(found[0]), "a");
});

test("a stream of files", async () => {
  const client = await connect();
  const found = await messages(client.submit("/pages", [3]));
  const values = found.filter(({ type }) => type === "data").map(({ data }) => data[0]);
  assert.deepEqual(await Promise.all(values.map((file) => text_of(file))), ["0", "1", "2", "2"]);
});

test("a file that is too large or not there", async () => {
  const client = await connect();
  const large = new File(["x".repeat(1024 * 1024 + 1)], "large.txt");
  const { error } = await client.upload_files(client.config.root, [large]);
  assert.match(error, /^HTTP 413: .*maximum allowed size of 1048576 bytes/);
  const file = { path: "/etc/passwd", meta: { _type: "gradio.FileData" } };
  await assert.rejects(client.predict("/shout", [file]), /there is no such file here/);
});

test("an upload and its progress", async () => {
  const client = await connect();
  const file = new File(["x".repeat(100_000)], "long.txt");
  const progress = fetch(`${client.config.root}/gradio_api/upload_progress?upload_id=js`).then((r) => r.text());
  const { files } = await client.upload_files(client.config.root, [file], "js");
  assert.equal(files.length, 1);
  const events = (await progress).trim().split("\n\n").map((event) => JSON.parse(event.replace(/^data: /, "")));
  assert.deepEqual(events.at(-1), { msg: "done" });
  const came = events.slice(0, -1).map(({ orig_name, chunk_size }) => (assert.equal(orig_name, "long.txt"), chunk_size));
  assert.equal(came.reduce((sum, size) => sum + size, 0), 100_000);
});

test("login", async () => {
  await assert.rejects(connect("/private"), { message: "Members only." });
  await assert.rejects(connect("/private", { auth: ["alice", "open"] }), /Invalid credentials/);
  const [mine, other] = await Promise.all([1, 2].map(() => connect("/private", { auth: ["alice", "open sesame"] })));
  assert.deepEqual(await data(mine, "/whoami", []), ["alice"]);
  assert.equal(mine.config.username, "alice");
  assert.deepEqual(await data(mine, "/remember", ["a"]), [["a"]]);
  assert.deepEqual(await data(other, "/remember", ["b"]), [["b"]]);
  for (const listener of ["/for_bob", "/for_bob_at_once"]) {
    await assert.rejects(mine.predict(listener, ["a"]), { message: `You may not call ${listener}.` });
  }
  const [file] = await data(mine, "/shout", [handle_file(new File(["fox"], "fox.txt"))]);
  assert.equal((await fetch(file.url)).status, 401);
  assert.equal(await (await mine.fetch(file.url)).text(), "FOX");
});

/**
 * A proxy that forwards each piece of data after `delay(piece)` milliseconds, in order on each connection. `piece`
 * is one of an answer.
 */
async function delaying(delay) {
  const relay = (from, to, delay) => {
    let turn = Promise.resolve();
    const later = (milliseconds, act) => {
      const due = performance.now() + milliseconds;
      turn = turn.then(async () => {
        const wait = due - performance.now();
        if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
        act();
      });
    };
    from.on("data", (piece) => later(delay(piece), () => to.write(piece)));
    from.on("end", () => later(0, () => to.end()));
    from.on("close", () => later(0, () => to.destroy()));
    from.on("error", () => {});
  };
  const proxy = createServer({ noDelay: true }, (client) => {
    const server = connect_to({ port: new URL(address).port, host: "127.0.0.1", noDelay: true });
    const toClient = delay();
    relay(client, server, () => toClient());
    relay(server, client, toClient);
  });
  await once(proxy.listen(0, "127.0.0.1"), "listening");
  return proxy;
}

/** Fails where a client waits for ever. */
async function ends(promise, what) {
  const hung = Symbol("hung");
  const timer = new Promise((resolve) => setTimeout(resolve, 20_000, hung).unref());
  assert.notEqual(await Promise.race([promise, timer]), hung, `the client waits in vain: ${what}`);
}

/** How the way from and to the server is: nothing between, jitter, or streams that are slower than answers. */
const ways = {
  "directly": null,
  "with 60 ms of jitter": () => () => Math.random() * 60,
  "with streams 150 ms behind answers": () => {
    let late = 0;
    return (piece) => {
      if (piece?.includes("HTTP/1.1 ")) late = piece.includes("text/event-stream") ? 150 : 0;
      return late;
    };
  },
};
for (const [way, delay] of Object.entries(ways)) {
  test(`no job is lost as the one before ends, ${way}`, { timeout: 300_000 }, async (t) => {
    let at = address;
    if (delay) {
      const proxy = await delaying(delay);
      t.after(() => proxy.close());
      at = `http://127.0.0.1:${proxy.address().port}`;
    }
    const connect = async () => {
      const client = await Client.connect(at, { events: ["data", "status"] });
      clients.push(client);
      return client;
    };
    for (let n = 0; n < 20; n++) {
      const client = await connect();
      const job = client.submit("/count", [1000]);
      await until(job, ({ type }) => type === "data");
      await job.cancel();
      await ends(client.predict("/swap", ["a", n]), `after cancel ${n}`);
    }
    // Around the end of a job of 10 ms, and around the end of its stream a quarter of a second later.
    const delays = Array.from({ length: 40 }, (_, n) => (n < 20 ? 3 * n : 60 + 20 * (n - 20)));
    await Promise.all(delays.map(async (delay) => {
      const client = await connect();
      await client.predict("/swap", ["a", 1]);
      const first = client.predict("/sleepy", [10]);
      await new Promise((resolve) => setTimeout(resolve, delay));
      await ends(Promise.all([first, client.predict("/swap", ["b", 2])]), `${delay} ms after another`);
    }));
  });
}

for (const [name, text] of Object.entries({
  quotes: "quotes \" ' \\ and\nnewlines\r\n\ttabs",
  separators: "next line \u0085, line separator \u2028, paragraph separator \u2029",
  unicode: "🦊 emoji, 日本語, a\u0301ccents and \u0000 null",
  markup: "<b>&amp;</b> data: event: \n\n data: {}",
  "1 MiB": "🦊x".repeat(1 << 18),
  "90,000 lines": "\ta\nb".repeat(90_000),
})) {
  test(`text survives both ways: ${name}`, async () => {
    const client = await connect();
    assert.deepEqual(await data(client, "/echo", [text]), [text]);
  });
}
