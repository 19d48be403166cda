// BullMQ on Redis: jobs from add to their results, a worker with as many at once as there are in flight.
// Prints the same lines as ours.rs. node bullmq.mjs PORT
import { createRequire } from 'node:module';

const require = createRequire(`${process.cwd()}/`);
const { Queue, QueueEvents, Worker } = require('bullmq');

const connection = { host: '127.0.0.1', port: Number(process.argv[2]), maxRetriesPerRequest: null };
const TIME = 4000;

for (const inFlight of [1, 64, 1024]) {
  const name = `jobs-${inFlight}`;
  const queue = new Queue(name, { connection });
  const events = new QueueEvents(name, { connection });
  queue.setMaxListeners(0);
  events.setMaxListeners(0);
  await events.waitUntilReady();
  const worker = new Worker(name, async (job) => job.data.scene, { connection, concurrency: inFlight });
  await worker.waitUntilReady();
  // A limit over all workers is what makes the two alike.
  await queue.setGlobalConcurrency(inFlight);
  const measure = async (time) => {
    const begun = performance.now();
    let done = 0;
    const caller = async () => {
      while (performance.now() - begun < time) {
        const job = await queue.add('render', { scene: 'a scene at dawn' });
        await job.waitUntilFinished(events);
        done += 1;
      }
    };
    await Promise.all(Array.from({ length: inFlight }, caller));
    return (done * 1000) / (performance.now() - begun);
  };
  await measure(TIME / 10);
  const rate = await measure(TIME);
  console.log(JSON.stringify({ who: 'BullMQ on Redis', in_flight: inFlight, events_per_second: rate }));
  await worker.close();
  await events.close();
  await queue.close();
}
process.exit(0);
