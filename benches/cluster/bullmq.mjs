// BullMQ on Redis, one process of several, as ours.rs: jobs from add to their results, workers that share a limit.
// node bullmq.mjs PORT NAME IN_FLIGHT LIMIT SECONDS
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';

const require = createRequire(`${process.cwd()}/`);
const { Queue, QueueEvents, Worker } = require('bullmq');

const [port, name, ...numbers] = process.argv.slice(2);
const [inFlight, limit, seconds] = numbers.map(Number);
const KEPT = 20000;

// Of the clock that all processes of the machine share.
const monotonic = () => Number(process.hrtime.bigint());
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

const connection = { host: '127.0.0.1', port: Number(port), maxRetriesPerRequest: null };
const queue = new Queue(name, { connection });
const events = new QueueEvents(name, { connection });
queue.setMaxListeners(0);
events.setMaxListeners(0);
await events.waitUntilReady();
const worker = new Worker(name, async (job) => monotonic() - job.data.at, { connection, concurrency: limit });
await worker.waitUntilReady();
// A limit over all workers is what makes them alike.
await queue.setGlobalConcurrency(limit);

const measure = async (time) => {
  const begun = monotonic();
  const times = { events: 0, admissions: [], starts: [] };
  const caller = async () => {
    while (monotonic() - begun < time * 1e9) {
      const at = monotonic();
      const job = await queue.add('work', { at }, { removeOnComplete: 10000 });
      const admission = monotonic() - at;
      const start = await job.waitUntilFinished(events);
      times.events += 1;
      if (times.starts.length < KEPT) {
        times.admissions.push(admission);
        times.starts.push(start);
      }
    }
  };
  await Promise.all(Array.from({ length: inFlight }, caller));
  return { rate: times.events / ((monotonic() - begun) / 1e9), ...times };
};

console.log('ready');
await lines.next();
await measure(seconds / 10);
console.log(JSON.stringify(await measure(seconds)));
// The others may still need its worker.
await lines.next();
process.exit(0);
