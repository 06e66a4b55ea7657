// drive.mjs: drives the libraries for Node.js, and pg_jobq in the same way, for
// bench.py; the database is that of the environment.
//   drive.mjs WHO setup
//   drive.mjs WHO fill JOBS             puts jobs, quickly
//   drive.mjs WHO life1 CLIENTS SECONDS takes and completes jobs one by one,
//                                       tells how many in how many seconds;
//                 cad1                  in one call, pg_jobq only
//   drive.mjs WHO put RATE SECONDS      puts jobs and tells, in microseconds,
//                                       "number before after-the-commit"
//   drive.mjs WHO take CLIENTS          waits for jobs, tells "number when"
import { writeSync } from 'node:fs';
import pg from 'pg';
import { PgBoss } from 'pg-boss';
import { Logger, makeWorkerUtils, run } from 'graphile-worker';

const [who, what, ...numbers] = process.argv.slice(2);
const [first, second] = numbers.map(Number);
const payload = JSON.parse(process.env.BENCH_PAYLOAD);
const socket = {
	host: process.env.PGHOST,
	port: Number(process.env.PGPORT),
	user: process.env.PGUSER,
	database: process.env.PGDATABASE,
};
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const now = () => performance.timeOrigin + performance.now();
const tell = (...words) => writeSync(1, words.join(' ') + '\n');
const micros = (ms) => Math.round(ms * 1000);
const numbered = (number) => ({ ...payload, number });
const delivered = (body) => tell(body.number, micros(now()));

async function clients(count) {
	const made = [];
	for (let n = 0; n < count; n++) {
		made.push(new pg.Client(socket));
		await made[n].connect();
	}
	return made;
}

// One after the other, each as soon as the one before has ended.
async function work(loops, seconds) {
	const start = now();
	let jobs = 0;
	await Promise.all(loops.map(async (one) => {
		while (now() - start < seconds * 1000 && (await one())) {
			jobs++;
		}
	}));
	tell(jobs, (now() - start) / 1000);
}

// put(number) at the rate.
async function produce(put) {
	const start = now();
	for (let number = 0; number < first * second; number++) {
		const wait = start + (number * 1000) / first - now();
		if (wait > 0) {
			await sleep(wait);
		}
		const before = now();
		await put(number);
		tell(number, micros(before), micros(now()));
	}
}

// ---- pg_jobq through the usual driver ----

const DEQUEUE = {
	name: 'dequeue',
	text: "SELECT id, lease, payload FROM jobq.dequeue('q')",
};
const COMPLETE_AND_DEQUEUE = {
	name: 'complete_and_dequeue',
	text: "SELECT id, lease, payload FROM jobq.complete_and_dequeue('q', $1, $2)",
};
const COMPLETE = { name: 'complete', text: 'SELECT jobq.complete($1, $2)' };
const RECEIVE = "CALL jobq.receive('q', 1, '1 hour')";

const node = {
	async life1() {
		const loops = (await clients(first)).map((client) => async () => {
			const { rows: [job] } = await client.query(DEQUEUE);
			if (job) {
				await client.query({ ...COMPLETE, values: [job.id, job.lease] });
			}
			return job !== undefined;
		});
		await work(loops, second);
	},
	async cad1() {
		const loops = (await clients(first)).map((client) => {
			let done = [];
			let lease = null;
			return async () => {
				const { rows: [job] } = await client.query({
					...COMPLETE_AND_DEQUEUE, values: [done, lease],
				});
				done = job ? [job.id] : [];
				lease = job ? job.lease : null;
				return job !== undefined;
			};
		});
		await work(loops, second);
	},
	async put() {
		const [client] = await clients(1);
		await produce((number) => client.query({
			name: 'enqueue',
			text: "SELECT jobq.enqueue('q', $1)",
			values: [numbered(number)],
		}));
	},
	async take() {
		await Promise.all((await clients(first)).map(async (client) => {
			for (;;) {
				const { rows: [{ deliveries }] } = await client.query(RECEIVE);
				for (const job of deliveries) {
					delivered(job.payload);
					await client.query({ ...COMPLETE, values: [job.id, job.lease] });
				}
			}
		}));
	},
};

// ---- graphile-worker: its runner, with an empty task ----

const logger = new Logger(() => () => {});
const runner = (pgPool, concurrency, task) => run({
	pgPool, concurrency, logger, noHandleSignals: true, taskList: { work: task },
});
const pool = (max) => {
	const made = new pg.Pool({ ...socket, max });
	made.on('error', () => {});
	made.on('connect', (client) => client.on('error', () => {}));
	return made;
};

const graphile = {
	async setup() {
		const utils = await makeWorkerUtils({ pgPool: pool(2), logger });
		await utils.migrate();
		await utils.release();
	},
	async life1() {
		let jobs = 0;
		let start = 0;
		let last = 0;
		const running = await runner(pool(first + 4), first, async () => {
			last = now();
			start ||= last;
			jobs++;
		});
		await sleep(second * 1000);
		await running.stop();
		// it does not wait for its last completions
		await sleep(500);
		tell(jobs, (last - start) / 1000);
	},
	async put() {
		const utils = await makeWorkerUtils({ pgPool: pool(2), logger });
		await produce((number) => utils.addJob('work', numbered(number)));
	},
	async take() {
		await runner(pool(first + 4), first, async (body) => delivered(body));
	},
};

// ---- pg-boss; its own workers poll, so fetch and complete are called here ----

async function boss(max, notify) {
	const made = new PgBoss({
		...socket, max, supervise: false, schedule: false, useListenNotify: notify,
	});
	made.on('error', (error) => console.error(error));
	await made.start();
	return made;
}

function bossOf(notify) {
	return {
		async setup() {
			const one = await boss(2, notify);
			await one.createQueue('q', notify ? { notify } : {});
		},
		async fill() {
			const one = await boss(2, notify);
			for (let left = first; left > 0; left -= 1000) {
				await one.insert('q', Array(Math.min(left, 1000)).fill({ data: payload }));
			}
		},
		async life1() {
			const one = await boss(first, notify);
			await work(Array(first).fill(async () => {
				const [job] = await one.fetch('q', { batchSize: 1 });
				if (job) {
					await one.complete('q', job.id);
				}
				return job !== undefined;
			}), second);
		},
		async put() {
			const one = await boss(2, notify);
			await produce((number) => one.send('q', numbered(number)));
		},
		async take() {
			const one = await boss(first + 2, notify);
			const options = {
				pollingIntervalSeconds: 0.5, batchSize: 100, localConcurrency: first,
			};
			await one.work('q', options, async (jobs) => {
				jobs.forEach((job) => delivered(job.data));
			});
		},
	};
}

const contenders = {
	node, graphile, pgboss: bossOf(false), pgboss_notify: bossOf(true),
};
await contenders[who][what]();
if (what !== 'take') {
	process.exit(0);
}
