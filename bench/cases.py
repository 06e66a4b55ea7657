"""cases.py: what is measured and compared: cells (one contender at one kind of
work), and cases, whose rows set one cell against another or against a figure.
Data only: knows neither how a cell is run nor how a table is printed."""
import re
from dataclasses import dataclass, field

LIBRARIES = ('graphile', 'pgboss', 'pgboss_notify')
NODE = ('node', *LIBRARIES)
TITLES = {
    'limit': 'PostgreSQL itself', 'delete': 'SKIP LOCKED, delete',
    'visibility': 'SKIP LOCKED, visibility timeout', 'pgq': 'PgQ',
    'pg_jobq': 'pg_jobq', 'secured': 'pg_jobq with a role and limits', 'node': 'pg_jobq from Node.js', 'c': 'pg_jobq from C',
    'graphile': 'graphile-worker', 'pgboss': 'pg-boss', 'pgboss_notify': 'pg-boss with LISTEN',
}


@dataclass(frozen=True)
class Cell:
    """A contender's script at so many clients. backlog: jobs that are there
    when a run starts, 0: an empty database; per_second: as many for each
    second of the run. fill: the script that puts them."""
    who: str
    script: str
    clients: int
    sync: str = 'on'
    backlog: int = 0
    per_second: int = 0
    fill: str = 'fill'
    queues: int = 0

    @property
    def name(self):
        parts = [self.who, self.script, str(self.clients)]
        if self.sync != 'on':
            parts.append('async')
        if self.queues:
            parts.append(f'{self.queues}q')
        if self.script.startswith('cycle'):
            parts.append(f'{self.backlog // 1000}k')
        return '-'.join(parts)

    @property
    def batch(self):
        """Jobs of one transaction of pgbench."""
        return int(re.search(r'\d*$', self.script)[0] or 1)

    @property
    def puts(self):
        return self.script.startswith(('enqueue', 'insert', 'copy', 'cycle', 'many'))

    @property
    def takes(self):
        return self.script.startswith(('life', 'cad', 'receive', 'cycle', 'many'))


@dataclass(frozen=True)
class Row:
    """cell is to reach so many times the rate of base; at_least None: shown.
    Of another column, which is a cost: base is to have so many times cell's."""
    work: str
    cell: Cell
    base: Cell
    at_least: float = None
    column: str = 'rate'


@dataclass(frozen=True)
class Limit:
    """The sum of a column over cells is to stay at or below, or, if least, at
    or above a figure."""
    work: str
    cells: tuple
    column: str
    limit: float = None
    least: bool = False


@dataclass
class Case:
    title: str
    rows: list
    cells: list = field(default_factory=list)
    short: bool = False
    counted: bool = False  # under callgrind, with nothing else


def put(who, clients, batch=1, sync='on'):
    script = 'insert' if who == 'limit' else 'enqueue'
    return Cell(who, f'{script}{batch}', clients, sync)


def take(who, clients, script='life1', sync='on'):
    batch = int(re.search(r'\d+$', script)[0])
    if batch == 1:
        backlog = {'graphile': 50000, 'pgboss': 5000}.get(who, 200000)
        return Cell(who, script, clients, sync, backlog=backlog)
    rate = {'pg_jobq': 400000, 'pgq': 140000 if batch == 100 else 600000}.get(who, 120000)
    return Cell(who, script, clients, sync, per_second=rate)


def cycle(who, clients, batch=1, backlog=10000):
    return Cell(who, f'cycle{batch}', clients, backlog=backlog)


def many(queues):
    return Cell('pg_jobq', 'many1', 8, backlog=10000, fill='many_fill', queues=queues)


def course(who, script='held1'):
    """Minutes, with a snapshot that is held, or without: free1."""
    return Cell(who, script, 8, backlog=10000)


COUNTS = (1, 2, 4, 8, 16, 32, 64)
PLAIN = ('delete', 'visibility')

CASES = {
    'limits': Case('What the machine gives', [], [
        Cell('limit', 'select1', 8), Cell('limit', 'select1', 32), put('limit', 8),
        put('limit', 32), put('limit', 8, 100), Cell('limit', 'copy', 1)]),
    'enqueue1': Case('Enqueue one by one', [
        Row('enqueue', put('pg_jobq', c), put('limit', c), 0.95) for c in (8, 32)] + [
        Row('enqueue', put('pg_jobq', c), Cell('limit', 'insert_two1', c)) for c in (8, 32)],
        short=True),
    'enqueue100': Case('Enqueue a hundred at once', [
        Row('enqueue_many(100)', put('pg_jobq', 8, 100), put('limit', 8, 100), 0.9)], short=True),
    'enqueue_peers': Case('Enqueue: the others', [
        Row('enqueue', put('pg_jobq', 8), put(who, 8)) for who in (*PLAIN, 'pgq')] + [
        Row('enqueue 100 at once', put('pg_jobq', 8, 100), put(who, 8, 100))
        for who in (*PLAIN, 'pgq')]),
    'cad1': Case('complete_and_dequeue(1), one durable commit a job', [
        Row('complete_and_dequeue(1)', take('pg_jobq', c, 'cad1'), base, least)
        for c in (8, 32)
        for base, least in ((put('limit', c), 0.85), (take('visibility', c), 4))], short=True),
    'life1': Case('dequeue(1) and complete(1) in two calls', [
        Row('dequeue(1), complete(1)', take('pg_jobq', 8), put('limit', 8), 0.75),
        Row('dequeue(1), complete(1)', take('pg_jobq', 32), put('limit', 32), 0.65),
        Row('dequeue(1), complete(1)', take('pg_jobq', 32), take('visibility', 32), 3)], short=True),
    'life1_delete': Case('The same beside taking and deleting in one commit', [
        Row(work, take('pg_jobq', 8, script), take('delete', 8))
        for work, script in (('dequeue(1), complete(1)', 'life1'), ('complete_and_dequeue(1)', 'cad1'))]),
    'receive': Case('receive(1) and complete(1)', [
        Row('receive(1), complete(1)', take('pg_jobq', c, 'receive1'), take('pg_jobq', c))
        for c in (8, 32)]),
    'async': Case('synchronous_commit = off', [
        Row('dequeue(1), complete(1)', take('pg_jobq', 8, sync='off'),
            take('visibility', 8, sync='off'), 3),
        Row('complete_and_dequeue(1)', take('pg_jobq', 8, 'cad1', 'off'),
            take('pg_jobq', 8, sync='off'), 1.5)], short=True),
    'security': Case('A role and limits beside a superuser without, synchronous_commit = off', [
        Row(work, cell('secured'), cell('pg_jobq'), 0.97, column)
        for column in ('rate', 'cpu_s_100k')
        for work, cell in (('enqueue', lambda who: put(who, 8, sync='off')),
                           ('dequeue(1), complete(1)', lambda who: take(who, 8, sync='off')))]),
    'node': Case('Libraries for Node.js, job by job', [
        Row(work, cell, take(who, 8), least)
        for who, least in (('graphile', 3), ('pgboss', 10))
        for work, cell in (('dequeue(1), complete(1)', take('pg_jobq', 8)),
                           ('dequeue(1), complete(1)', take('node', 8)),
                           ('complete_and_dequeue(1)', take('node', 8, 'cad1')))], short=True),
    'batch100': Case('dequeue(100) and complete_many', [
        Row('dequeue(100), complete_many', take('pg_jobq', 8, 'life100'), base, least)
        for base, least in ((take('visibility', 8, 'life100'), 4),
                            (take('pgq', 1, 'life100'), 2.5))], short=True),
    'batch1000': Case('dequeue(1000) and complete_many', [
        Row('dequeue(1000), complete_many', take('pg_jobq', 4, 'life1000'),
            take('pgq', 1, 'life1000'), 1)], short=True),
    'clients': Case('1 to 64 clients, one by one', [
        Row(work, take('pg_jobq', c, script), take('pg_jobq', 8, script), 0.8 if c > 8 else None)
        for work, script in (('dequeue(1), complete(1)', 'life1'), ('complete_and_dequeue(1)', 'cad1'))
        for c in COUNTS if c != 8] + [
        Row('enqueue', put('pg_jobq', c), put('pg_jobq', 8), 0.8 if c > 8 else None)
        for c in COUNTS if c != 8],
        [f(who, c) for f, who in ((put, 'limit'), (take, 'visibility')) for c in COUNTS]),
    'backlog': Case('Backlog of 5,000,000 beside 10,000', [
        Row(work, cycle('pg_jobq', 8, batch, 5000000), cycle('pg_jobq', 8, batch), 0.9)
        for work, batch in (('enqueue, dequeue, complete: 1 each', 1),
                            ('enqueue, dequeue, complete: 100 each', 100))]),
    'queues': Case('1,000 queues beside one', [
        Row('enqueue, dequeue, complete', many(1000), many(1), 0.9)]),
    'held': Case('A held snapshot', [
        Limit('last by first 20 s', (course(who),), 'last_by_first',
              0.95 if who == 'pg_jobq' else None, least=True)
        for who in ('pg_jobq', *PLAIN)] + [
        Limit('the same without a snapshot', (course('pg_jobq', 'free1'),),
              'last_by_first', least=True),
        Limit('with it, s of the server for 100,000 jobs', (course('pg_jobq'),),
              'cpu_s_100k'),
        Limit('without, s of the server for 100,000 jobs', (course('pg_jobq', 'free1'),),
              'cpu_s_100k')]),
    'life': Case('A whole life: WAL, and processor time of the server', [
        Limit(f'{work}, {what}', (put('pg_jobq', 8, batch), take('pg_jobq', 8, f'life{batch}')),
              column, limit)
        for batch, work, bytes_ in ((1, 'one by one', 950), (100, 'by the hundred', 600))
        for column, what, limit in (('wal_per_job', 'bytes of WAL a job', bytes_),
                                    ('cpu_s_100k', 's for 100,000 jobs', None))], short=True),
    'life_peers': Case('A whole life: the others', [
        Limit(f'{work}, {what}', (put(who, 8, batch), take(who, c, f'life{batch}')), column)
        for batch, work, peers in ((1, 'one by one', (('delete', 8), ('visibility', 8))),
                                   (100, 'by the hundred',
                                    (('delete', 8), ('visibility', 8), ('pgq', 1))))
        for column, what in (('wal_per_job', 'bytes of WAL a job'),
                             ('cpu_s_100k', 's for 100,000 jobs'))
        for who, c in peers]),
    'instructions': Case('Instructions of the process that serves one client', [
        Row(work, cell, base, least, 'instructions')
        for work, cell, bases in (
            ('enqueue', put('pg_jobq', 1), ((put('limit', 1), None),)),
            ('enqueue_many(100)', put('pg_jobq', 1, 100), ((put('limit', 1, 100), None),)),
            ('complete_and_dequeue(1)', take('pg_jobq', 1, 'cad1'),
             ((put('limit', 1), None), (take('visibility', 1), None))),
            ('dequeue(1), complete(1)', take('pg_jobq', 1),
             ((put('limit', 1), None), (take('visibility', 1), None))),
            ('dequeue(100), complete_many', take('pg_jobq', 1, 'life100'),
             ((take('visibility', 1, 'life100'), None), (take('pgq', 1, 'life100'), None))),
            ('dequeue(1000), complete_many', take('pg_jobq', 1, 'life1000'),
             ((take('pgq', 1, 'life1000'), None),)),
            ('enqueue', put('secured', 1), ((put('pg_jobq', 1), 0.97),)),
            ('dequeue(1), complete(1)', take('secured', 1), ((take('pg_jobq', 1), 0.97),)))
        for base, least in bases], counted=True),
    'idle': Case('50 sessions wait for nothing', [
        Limit('share of a core', (Cell('pg_jobq', 'wait', 50),), 'cores', 0.01),
        Limit('share of a core, polling every 100 ms', (Cell('visibility', 'poll', 50),), 'cores')]),
    'latency': Case('From commit to delivery, 100 jobs a second, 8 workers', [
        Limit(f'{p}, ms', (Cell(who, 'latency', 8),), f'{p}_ms',
              {'p50': 1, 'p99': 5}.get(p) if who == 'c' else None)
        for who in ('c', *NODE) for p in ('p50', 'p95', 'p99')]),
}


def cells_of(names):
    """The cells of these cases, each once. Kept together are those that are
    compared with each other: of equal clients, batch and synchronous_commit."""
    found = {}
    for name in names:
        case = CASES[name]
        for row in case.rows:
            for cell in (row.cell, row.base) if isinstance(row, Row) else row.cells:
                found[cell] = None
        found.update(dict.fromkeys(case.cells))
    return sorted(found, key=lambda c: (c.sync, c.batch, c.clients if c.batch == 1 else 0))
