"""bench.py: runs the cells of cases.py against the server that the environment
names, in rounds and rotating order, and writes a line of CSV for each run. A run
whose jobs do not add up gives an error and no rate. Must not judge rates:
report.py does."""
import argparse
import csv
import os
import re
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

from cases import CASES, LIBRARIES, NODE, TITLES, cells_of

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf('SC_CLK_TCK')
TEXT = ('{"id":123456,"type":"email.send","to":"someone.long.name@example.org",'
        '"subject":"Your order 8812-77 has shipped","template":"order_shipped_v3",'
        '"vars":{"name":"Ann Example","carrier":"DHL","eta":"2026-11-23","items":3},"trace":"%s"}')
PAYLOAD = TEXT % ('f3a9c1d7e5b84260' * 16)[:256 - len(TEXT) + 2]
COLUMNS = ('round', 'cell', 'seconds', 'transactions', 'jobs', 'rate', 'p50_ms', 'p95_ms',
           'p99_ms', 'wal_per_job', 'cpu_s_100k', 'cores', 'others_cores', 'last_by_first',
           'instructions', 'error')
FILES_OF = {'node': 'pg_jobq', 'c': 'pg_jobq', 'secured': 'pg_jobq', 'pgboss_notify': 'pgboss'}
USER_OF = {'secured': 'bench_app'}
HELD_EDGE = 20
# Courses over minutes, with and without a snapshot, run the scripts of others.
SCRIPT_OF = {'held1': 'cycle1', 'free1': 'cycle1'}
# Transactions of the two runs whose instructions are compared, by the batch.
COUNTED = {1: (200, 1200), 100: (20, 80), 1000: (4, 16)}
LATENCY_RATE = 100


class Wrong(Exception):
    """The run gives no rate."""


def file_of(who, name):
    """A contender's own file, or that of the one whose scripts it shares; the
    libraries are driven by one program."""
    own = HERE / who / name
    return own if own.exists() else HERE / FILES_OF.get(who, who) / name


def script_of(cell):
    return file_of(cell.who, SCRIPT_OF.get(cell.script, cell.script) + '.sql')


# ---- the server ----

def psql(database, *arguments, **variables):
    command = ['psql', '-qAtX', '-v', 'ON_ERROR_STOP=1', '-d', database]
    for name, value in variables.items():
        command += ['-v', f'{name}={value}']
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Wrong(done.stderr.strip()[:400])
    return done.stdout.strip()


def value(sql):
    return psql('postgres', '-c', sql)


def wal_position():
    return int(value("SELECT pg_current_wal_insert_lsn() - '0/0'"))


def processor(postmaster):
    """Processor seconds of the server's processes, those that ended included."""
    def stat(pid):
        fields = Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()
        return int(fields[1]), [int(ticks) for ticks in fields[11:15]]

    total = sum(stat(postmaster)[1])
    for entry in os.listdir('/proc'):
        if entry.isdigit():
            try:
                parent, ticks = stat(entry)
            except OSError:
                continue
            if parent == postmaster:
                total += ticks[0] + ticks[1]
    return total / TICKS


def machine():
    """Seconds in which the machine's processors were busy, or taken away."""
    fields = [int(f) for f in Path('/proc/stat').read_text().split('\n', 1)[0].split()[1:9]]
    return (sum(fields) - fields[3] - fields[4]) / TICKS


def children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


class Meter:
    """WAL and processor time from its making to stop()."""

    def __init__(self):
        self.postmaster = int(
            Path(value('SHOW data_directory'), 'postmaster.pid').read_text().split()[0])
        self.start = self.now()

    def now(self):
        return (wal_position(), processor(self.postmaster), machine(), children(), time.time())

    def stop(self):
        wal, server, busy, clients, seconds = (
            b - a for a, b in zip(self.start, self.now()))
        return wal, server, {
            'cores': server / seconds,
            'others_cores': max(0, busy - server - clients) / seconds}


def percentiles(values):
    if len(values) < 2:
        return {}
    cut = statistics.quantiles(values, n=100, method='inclusive')
    return {'p50_ms': cut[49], 'p95_ms': cut[94], 'p99_ms': cut[98]}


# ---- a database for a cell ----

class Bench:
    def __init__(self, options):
        self.options = options
        self.node = options.node
        self.databases = set()
        self.courses = []

    def backlog(self, cell):
        needed = cell.backlog or round(cell.per_second * self.options.seconds)
        if self.options.callgrind:
            needed = min(needed, (sum(COUNTED[cell.batch]) + 10) * cell.batch)
        return needed

    def database(self, cell):
        """Cells that take share a database, which is filled up before each run;
        others begin with an empty one."""
        if not self.backlog(cell):
            return 'fresh'
        parts = [cell.who, cell.fill, str(self.backlog(cell)), str(cell.queues)]
        if cell.who == 'pgq':
            parts.append(str(cell.batch))
        return '_'.join(parts)

    def sql(self, cell, database, name, **variables):
        path = file_of(cell.who, name + '.sql')
        if path.exists():
            return psql(database, '-f', str(path), **variables)
        return ''

    def count(self, cell, database):
        put, done = self.sql(cell, database, 'count').split('|')
        return int(put), int(done)

    def prepare(self, cell):
        database = self.database(cell)
        if database not in self.databases:
            psql('postgres', '-c', f'CREATE DATABASE {database}')
            self.databases.add(database)
            if cell.who in LIBRARIES:
                self.drive(cell, database, 'setup')
            self.sql(cell, database, 'setup')
        if self.backlog(cell):
            put, done = self.count(cell, database)
            missing = self.backlog(cell) - (put - done)
            missing -= missing % (cell.batch if cell.who == 'pgq' else 1)
            if missing > 0 and cell.who.startswith('pgboss'):
                self.drive(cell, database, 'fill', str(missing))
            elif missing > 0:
                self.sql(cell, database, cell.fill, n=missing, payload=PAYLOAD,
                         batch=cell.batch, queues=cell.queues)
        self.sql(cell, database, 'prepare')
        psql(database, '-c', 'CHECKPOINT')
        time.sleep(0.2)
        return database

    def drop(self, database):
        psql('postgres', '-c', f'DROP DATABASE IF EXISTS {database} WITH (FORCE)')
        self.databases.discard(database)

    def audit(self):
        """What memory counted is what the tables hold."""
        wrong = []
        for database in sorted(self.databases):
            if database.startswith(('pg_jobq_', 'secured_')):
                counted = psql(database, '-f', str(HERE / 'pg_jobq/count.sql'))
                stored = psql(database, '-f', str(HERE / 'pg_jobq/audit.sql'))
                if counted != stored:
                    wrong.append(f'{database}: counted {counted}, stored {stored}')
        return wrong

    # ---- clients ----

    def pgbench(self, cell, database, *amount):
        logs = self.options.scratch / 'log'
        for old in logs.parent.glob('log.*'):
            old.unlink()
        run = subprocess.run(
            ['pgbench', '-n', '-M', 'prepared', '-c', str(cell.clients), '-j',
             str(min(cell.clients, 2)), *amount, '-D', f'payload={PAYLOAD}',
             '-D', 'done={}', '-D', 'lease=0', '-D', f'queues={cell.queues or 1}',
             '-l', '--log-prefix', str(logs),
             '-f', str(script_of(cell)), database],
            capture_output=True, text=True, check=False,
            env={**os.environ, 'PGUSER': USER_OF.get(cell.who, os.environ['PGUSER']),
                 'PGOPTIONS': f'-c synchronous_commit={cell.sync}'})
        count = re.search(r'actually processed: (\d+)', run.stdout)
        rate = re.search(r'tps = ([\d.]+)', run.stdout)
        if run.returncode or not count or 'aborted' in run.stderr:
            found = re.search(r'error:.*', run.stderr)
            raise Wrong(found[0] if found else run.stderr.strip()[-300:])
        if not int(count[1]):
            raise Wrong('no transaction ended in time')
        lines = [line.split() for log in logs.parent.glob('log.*')
                 for line in log.read_text().splitlines()]
        return int(count[1]), int(count[1]) / float(rate[1]), lines

    def drive(self, cell, database, *arguments):
        """The program for Node.js: 'setup', 'fill N', or 'life1 CLIENTS
        SECONDS', which tells jobs and seconds."""
        run = subprocess.run(
            [self.node / 'node', self.node / 'drive.mjs', cell.who, *arguments],
            capture_output=True, text=True, check=False, timeout=600,
            env={**os.environ, 'PGDATABASE': database, 'BENCH_PAYLOAD': PAYLOAD})
        if run.returncode:
            raise Wrong(run.stderr.strip()[-300:])
        return run.stdout.split()

    # ---- kinds of runs ----

    def run(self, cell):
        database = self.prepare(cell)
        try:
            if self.options.callgrind:
                return self.run_counted(cell, database)
            kind = {'copy': self.run_copy, 'held1': self.run_course,
                    'free1': self.run_course, 'wait': self.run_idle,
                    'poll': self.run_idle, 'latency': self.run_latency}
            return kind.get(cell.script, self.run_work)(cell, database)
        finally:
            if database == 'fresh':
                self.drop(database)

    def run_work(self, cell, database):
        before, meter = self.count(cell, database), Meter()
        if cell.who in NODE:
            jobs, seconds = self.drive(cell, database, cell.script, str(cell.clients),
                                       str(self.options.seconds))
            transactions, seconds, latencies = int(jobs), float(seconds), []
        else:
            transactions, seconds, lines = self.pgbench(
                cell, database, '-T', str(self.options.seconds))
            # pgbench does not see how long a mere SELECT 1 takes
            latencies = [int(line[2]) / 1000 for line in lines if cell.puts or cell.takes]
        wal, server, shares = meter.stop()
        put, done = (b - a for a, b in zip(before, self.count(cell, database)))
        jobs = done if cell.takes else put if cell.puts else transactions
        self.check(cell, transactions, put, done)
        return {'seconds': seconds, 'transactions': transactions, 'jobs': jobs,
                'rate': jobs / seconds, **percentiles(latencies),
                'wal_per_job': wal / jobs, 'cpu_s_100k': server / jobs * 1e5, **shares}

    def run_counted(self, cell, database):
        """What more transactions cost beyond fewer, each in a new session."""
        before = self.count(cell, database)
        few, many = COUNTED[cell.batch]
        spent = -self.instructions(cell, database, few) + self.instructions(cell, database, many)
        put, done = (b - a for a, b in zip(before, self.count(cell, database)))
        if cell.script.startswith('cad'):
            done += 2  # each of two sessions leaves a job behind
        expected = (few + many) * cell.batch
        # PgQ counts events by a tick's number, which is one less after its first
        if abs((put if cell.puts else done) - expected) > 1:
            raise Wrong(f'{put} jobs put and {done} finished instead of {expected}')
        jobs = (many - few) * cell.batch
        return {'transactions': many - few, 'jobs': jobs, 'instructions': spent / jobs}

    def ended(self):
        """The log names the processes of pgbench's sessions that have ended."""
        return set(re.findall(r'^(\d+) pgbench LOG:  disconnection',
                              self.options.server_log.read_text(), re.M))

    def instructions(self, cell, database, transactions):
        """All that the sessions of a run of pgbench execute: one that looks
        around first, and the one that works."""
        before = self.ended()
        self.pgbench(cell, database, '-t', str(transactions))
        for _ in range(100):
            totals = [re.search(r'^totals: (\d+)', counted.read_text(), re.M)
                      for counted in (self.options.callgrind / pid for pid in self.ended() - before)
                      if counted.exists()]
            if len(totals) == 2 and all(totals):
                return sum(int(total[1]) for total in totals)
            time.sleep(0.1)
        raise Wrong('callgrind has not counted two sessions')

    @staticmethod
    def check(cell, transactions, put, done):
        """Each transaction put and finished as many jobs as it should have."""
        expected = transactions * cell.batch
        if put != (expected if cell.puts else 0):
            raise Wrong(f'{transactions} transactions put {put} jobs')
        if not cell.takes:
            return
        if cell.script.startswith('cad'):
            expected -= cell.clients
        # a call may get fewer than it asks for, but never none
        least = expected if cell.batch == 1 else 0.95 * expected
        if not least <= done <= expected:
            raise Wrong(f'{transactions} transactions finished {done} jobs of {expected}')

    def run_copy(self, cell, database):
        rows = 500000
        line = PAYLOAD.replace('\\', '\\\\') + '\n'
        meter, start = Meter(), time.time()
        subprocess.run(['psql', '-qX', '-d', database, '-f', str(file_of(cell.who, 'copy.sql'))],
                       input=line * rows, text=True, check=True)
        seconds = time.time() - start
        wal, server, shares = meter.stop()
        put, done = self.count(cell, database)
        self.check(cell, rows, put, done)
        return {'seconds': seconds, 'transactions': 1, 'jobs': rows, 'rate': rows / seconds,
                'wal_per_job': wal / rows, 'cpu_s_100k': server / rows * 1e5, **shares}

    def run_course(self, cell, database):
        """The same number of jobs comes and goes for minutes, while a snapshot
        is held or another session does nothing."""
        seconds = self.options.held
        before = self.count(cell, database)
        with subprocess.Popen(['psql', '-qAtX', '-d', database], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, text=True) as holder:
            if cell.script == 'held1':
                holder.stdin.write('BEGIN ISOLATION LEVEL REPEATABLE READ;\n')
            holder.stdin.write('SELECT 1;\n')
            holder.stdin.flush()
            holder.stdout.readline()
            meter = Meter()
            transactions, seconds, lines = self.pgbench(
                cell, database, '-T', str(seconds), '--aggregate-interval=1')
            wal, server, shares = meter.stop()
            holder.stdin.close()
        put, done = (b - a for a, b in zip(before, self.count(cell, database)))
        if not put == done == transactions:
            raise Wrong(f'{transactions} transactions put {put} and finished {done} jobs')
        course = {}
        for line in lines:
            course[int(line[0])] = course.get(int(line[0]), 0) + int(line[1])
        # the first and the last second are cut
        counts = [course[second] for second in sorted(course)][1:-1]
        edge = min(HELD_EDGE, len(counts) // 3)
        self.courses += [(cell.who, cell.script, second, count) for second, count in enumerate(counts, 1)]
        return {'seconds': seconds, 'transactions': transactions, 'jobs': done,
                'rate': done / seconds, 'wal_per_job': wal / done,
                'cpu_s_100k': server / done * 1e5, **shares,
                'last_by_first': sum(counts[-edge:]) / sum(counts[:edge])}

    def run_idle(self, cell, database):
        """Sessions that wait, once they all do."""
        seconds = self.options.idle
        with subprocess.Popen(
                ['pgbench', '-n', '-c', str(cell.clients), '-T', str(seconds + 4),
                 '-D', f"wait='{seconds + 4} s'", '-f',
                 str(file_of(cell.who, cell.script + '.sql')), database],
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as clients:
            time.sleep(2)
            meter = Meter()
            time.sleep(seconds)
            _, _, shares = meter.stop()
            there = int(value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = "
                              f"'client backend' AND datname = '{database}'"))
            _, errors = clients.communicate()
        if clients.returncode or there != cell.clients:
            raise Wrong(f'{there} sessions; {errors.strip()[-200:]}')
        return {'seconds': seconds, 'cores': shares['cores']}

    def run_latency(self, cell, database):
        """From what the producer knows of its commit to the worker that has it."""
        options, env = self.options, {**os.environ, 'PGDATABASE': database,
                                      'BENCH_PAYLOAD': PAYLOAD}
        seconds = max(options.seconds, 5)
        if cell.who == 'c':
            client = [str(options.latency_client)]
            put = [*client, 'put', '', f"SELECT jobq.enqueue('q', '{PAYLOAD}')",
                   str(LATENCY_RATE), str(seconds)]
            take = [*client, 'take', '', "CALL jobq.receive('q', 1, '1 hour')",
                    'SELECT jobq.complete($1::bigint, $2::bigint)', '', '0']
            takers = cell.clients
        else:
            client = [self.node / 'node', self.node / 'drive.mjs', cell.who]
            put = [*client, 'put', str(LATENCY_RATE), str(seconds)]
            take, takers = [*client, 'take', str(cell.clients)], 1
        files = [self.options.scratch / f'take{n}' for n in range(takers)]
        workers = []
        for file in files:
            with open(file, 'w', encoding='utf-8') as out:
                workers.append(subprocess.Popen(take, stdout=out, env=env))
        try:
            time.sleep(3)
            meter = Meter()
            produced = subprocess.run(put, capture_output=True, text=True, check=True, env=env)
            _, server, shares = meter.stop()
            time.sleep(1.5)
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        got = dict(line.split() for file in files for line in file.read_text().splitlines())
        waits, missing = [], 0
        for line in produced.stdout.splitlines():
            job, _, committed = line.split()
            if job in got:
                waits.append(max(0, int(got[job]) - int(committed)) / 1000)
            else:
                missing += 1
        if missing or len(waits) < LATENCY_RATE * seconds * 0.99:
            raise Wrong(f'{len(waits)} jobs delivered, {missing} not')
        return {'seconds': seconds, 'jobs': len(waits), **percentiles(waits),
                'cpu_s_100k': server / len(waits) * 1e5, 'cores': shares['cores']}


# ---- what can be run ----

def missing_contenders(node):
    """Why contenders cannot be run."""
    why = {}
    if not value("SELECT 1 FROM pg_available_extensions WHERE name = 'pgq'"):
        why['pgq'] = 'the package postgresql-15-pgq3 is not installed'
    if not (node / 'node').exists():
        for who in NODE:
            why[who] = 'npm is not there, or its registry is not reachable'
    return why


def conditions(skipped):
    """Where and how this was measured, a line each."""
    cpu = re.search(r'model name\s*: (.*)', Path('/proc/cpuinfo').read_text())
    memory = int(re.search(r'MemTotal:\s*(\d+)', Path('/proc/meminfo').read_text())[1])
    yield 'begun', time.strftime('%Y-%m-%d %H:%M:%S %Z')
    yield 'machine', (f'{os.cpu_count()} processors ({cpu[1] if cpu else "unknown"}), '
                      f'{memory // 1024 // 1024} GiB, shared by server and clients')
    yield 'system', f'{os.uname().sysname} {os.uname().release}'
    yield 'server', value('SELECT version()')
    settings = value(
        "SELECT string_agg(name || ' = ' || current_setting(name), ', ' ORDER BY name) "
        "FROM pg_settings WHERE source = 'configuration file' AND name !~ "
        "'directories|addresses|^lc_|^log_|TimeZone|DateStyle|text_search' OR name IN "
        "('synchronous_commit', 'fsync', 'full_page_writes', 'wal_sync_method', 'autovacuum', "
        "'checkpoint_timeout', 'jobq.claim_durability')")
    yield 'settings', settings
    yield 'payload', f'{len(PAYLOAD)} bytes of JSON'
    for who, why in skipped.items():
        yield 'skipped', f'{TITLES[who]}: {why}'


def in_turn(cells, number):
    """Another order in each round, but what is compared stays together."""
    groups = {}
    for cell in cells:
        groups.setdefault((cell.sync, cell.batch, cell.clients), []).append(cell)
    groups = list(groups.values())
    turn = number % len(groups)
    for group in groups[turn:] + groups[:turn]:
        turn = number % len(group)
        yield from group[turn:] + group[:turn]


def once(cell):
    """Runs that take minutes are not repeated."""
    return cell.script in SCRIPT_OF


def main():
    parse = argparse.ArgumentParser()
    parse.add_argument('--cases', nargs='*', default=[])
    parse.add_argument('--who', nargs='*', default=[])
    parse.add_argument('--full', action='store_true')
    parse.add_argument('--rounds', type=int, required=True)
    parse.add_argument('--seconds', type=int, required=True)
    parse.add_argument('--held', type=int, default=120)
    parse.add_argument('--idle', type=int, default=10)
    parse.add_argument('--node', type=Path, required=True)
    parse.add_argument('--latency-client', type=Path, required=True)
    parse.add_argument('--scratch', type=Path, required=True)
    parse.add_argument('--callgrind', type=Path,
                       help='count instructions: where callgrind writes')
    parse.add_argument('--server-log', type=Path)
    parse.add_argument('--out', type=Path, required=True, help='results without extension')
    options = parse.parse_args()
    names = options.cases or [n for n, case in CASES.items()
                              if case.short or options.full and not case.counted]
    for name in names:
        if name not in CASES:
            sys.exit(f'no case "{name}"; there are: {" ".join(CASES)}')
        if CASES[name].counted != bool(options.callgrind):
            sys.exit(f'case "{name}" is for make bench'
                     f'{"-instructions" if CASES[name].counted else ""}')
    cells = [c for c in cells_of(names) if not options.who or c.who in options.who]
    why = missing_contenders(options.node)
    skipped = {c.who: why[c.who] for c in cells if c.who in why}
    cells = [c for c in cells if c.who not in skipped]
    with open(f'{options.out}.txt', 'w', encoding='utf-8') as out:
        lines = [f'{name}: {text}' for name, text in conditions(skipped)]
        lines.append(f'cases: {" ".join(names)}')
        lines.append(f'rounds: {options.rounds} of {options.seconds} s')
        print(*lines, sep='\n', file=out)
    print(*lines, sep='\n', flush=True)
    bench, errors = Bench(options), 0
    with open(f'{options.out}.csv', 'w', encoding='utf-8', newline='') as out:
        table = csv.DictWriter(out, COLUMNS, restval='')
        table.writeheader()
        for number in range(options.rounds):
            for cell in in_turn(cells, number):
                if number and once(cell):
                    continue
                start = time.time()
                try:
                    result = bench.run(cell)
                except (Wrong, OSError, ValueError, subprocess.SubprocessError) as error:
                    result, errors = {'error': ' '.join(str(error).split())}, errors + 1
                table.writerow({'round': number + 1, 'cell': cell.name, **{
                    name: f'{v:.4g}' if isinstance(v, float) and v < 1000 else
                    round(v) if isinstance(v, float) else v for name, v in result.items()}})
                out.flush()
                told = result.get('error') or ', '.join(
                    f'{name} {result[name]:,.4g}' if result[name] < 1000 else
                    f'{name} {result[name]:,.0f}'
                    for name in ('rate', 'p50_ms', 'p99_ms', 'wal_per_job', 'cpu_s_100k',
                                 'cores', 'others_cores', 'last_by_first', 'instructions')
                    if name in result)
                print(f'{number + 1} {cell.name:28} {told} [{time.time() - start:.1f} s]',
                      flush=True)
    if bench.courses:
        with open(f'{options.out}-held.csv', 'w', encoding='utf-8', newline='') as out:
            csv.writer(out).writerows([('who', 'script', 'second', 'jobs'), *bench.courses])
    for wrong in bench.audit():
        print(wrong)
        errors += 1
    sys.exit(1 if errors else 0)


if __name__ == '__main__':
    main()
