"""selftest.py: are the cells complete, does a run that lost work give an error,
and does the table say so when a target is missed? Without a server; run by lint.
Prints what is wrong and nothing else."""
import os
import tempfile
from pathlib import Path

import bench
import report
from cases import CASES, LIBRARIES, NODE, TITLES, Limit, Row, cells_of, put, take

HERE = Path(__file__).resolve().parent
wrong = []


def expect(what, met):
    if not met:
        wrong.append(what)


def refused(cell, transactions, put_, done):
    try:
        bench.Bench.check(cell, transactions, put_, done)
    except bench.Wrong:
        return True
    return False


# every cell of a contender in SQL has its files; names are different
cells = cells_of(CASES)
expect('cells of the same name', len({cell.name for cell in cells}) == len(cells))
for cell in cells:
    expect(f'{cell.name} has no title', cell.who in TITLES)
    files = [] if cell.who in NODE or cell.script == 'latency' else [bench.script_of(cell).name]
    if cell.who not in LIBRARIES:
        files += ['setup.sql', 'count.sql']
    if (cell.backlog or cell.per_second) and not cell.who.startswith('pgboss'):
        files.append(cell.fill + '.sql')
    for name in files:
        path = bench.file_of(cell.who, name)
        expect(f'{cell.name}: no {path.parent.name}/{name}', path.exists())
for number in range(3):
    turn = list(bench.in_turn(cells, number))
    expect('a round leaves cells out', set(turn) == set(cells) and len(turn) == len(cells))
    expect('a round is like the first', number == 0 or turn != list(bench.in_turn(cells, 0)))

# what was put and finished is what the client counted
expect('right counts are refused', not refused(put('limit', 8), 50, 50, 0))
expect('a lost job is not noticed', refused(put('limit', 8), 50, 49, 0))
expect('right batches are refused', not refused(put('limit', 8, 100), 50, 5000, 0))
expect('half a batch is not noticed', refused(put('limit', 8, 100), 50, 4950, 0))
expect('finished jobs are refused', not refused(take('pg_jobq', 8), 50, 0, 50))
expect('a job not finished is not noticed', refused(take('pg_jobq', 8), 50, 0, 49))
expect('a job finished twice is not noticed', refused(take('pg_jobq', 8), 50, 0, 51))
expect('jobs put by a taker are not noticed', refused(take('pg_jobq', 8), 50, 1, 50))
expect('the first turns are not counted', not refused(take('pg_jobq', 8, 'cad1'), 50, 0, 42))
expect('a turn without a job is not noticed', refused(take('pg_jobq', 8, 'cad1'), 50, 0, 41))
expect('a dry queue is not noticed', refused(take('pg_jobq', 8, 'life100'), 50, 0, 4000))

# the table
row = CASES['enqueue1'].rows[0]
cost = Row('seconds', row.cell, row.base, row.at_least, 'cpu_s_100k')
limit = Limit('bytes', (row.cell, row.base), 'wal_per_job', 950)
with tempfile.TemporaryDirectory() as directory:
    path = os.path.join(directory, 'x')

    def results(ours):
        lines = [','.join(bench.COLUMNS)]
        for number, rate in enumerate(ours, 1):
            for cell, of, wal in ((row.cell, rate, 400), (row.base, 1000, 500)):
                fields = dict.fromkeys(bench.COLUMNS, '')
                fields.update(round=number, cell=cell.name, rate=of, wal_per_job=wal,
                              cpu_s_100k=1e6 / of)
                lines.append(','.join(str(field) for field in fields.values()))
        Path(path + '.csv').write_text('\n'.join(lines) + '\n', encoding='utf-8')
        return report.Results(path)

    good, bad = (round(1000 * row.at_least) + more for more in (1, -1))
    expect('a target that is met is not', report.ratio_line(results([good]), row)[-1] == 'yes')
    expect('a missed target is met', report.ratio_line(results([bad]), row)[-1] == '**no**')
    expect('a cost that is low enough is not',
           report.ratio_line(results([good]), cost)[-1] == 'yes')
    expect('too high a cost is low enough',
           report.ratio_line(results([bad]), cost)[-1] == '**no**')
    expect('not the median of the rounds',
           report.ratio_line(results([good, 1, good]), row)[-1] == 'yes')
    line = report.limit_line(results([good]), limit)
    expect('not the sum of the cells', line[2].startswith('900 ') and line[-1] == 'yes')

print('\n'.join(wrong), end='')
