"""report.py RESULTS: the table (Markdown, also on the standard output) and the
plots of what bench.py wrote to RESULTS.*. A ratio is the median of the rounds'
ratios, since what is compared ran side by side in each. Measures nothing."""
import csv
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from cases import CASES, COUNTS, TITLES, Row, cells_of, put, take

NUMBERS = {'rate': ',.0f', 'p50_ms': '.2f', 'p95_ms': '.2f', 'p99_ms': '.2f',
           'wal_per_job': ',.0f', 'cpu_s_100k': '.2f', 'cores': '.4f', 'others_cores': '.2f',
           'last_by_first': '.2f', 'instructions': ',.0f'}


class Results:
    def __init__(self, path):
        self.rounds, self.errors = {}, []
        with open(f'{path}.csv', encoding='utf-8', newline='') as file:
            for line in csv.DictReader(file):
                if line['error']:
                    self.errors.append((line['round'], line['cell'], line['error']))
                else:
                    self.rounds.setdefault(line['cell'], {})[int(line['round'])] = line

    def values(self, cell, column):
        """By round."""
        return {number: float(line[column]) for number, line in
                self.rounds.get(cell.name, {}).items() if line[column]}

    def median(self, cell, column):
        values = self.values(cell, column).values()
        return statistics.median(values) if values else None

    def text(self, cell, column):
        values = self.values(cell, column).values()
        if not values:
            return '–'
        form = NUMBERS[column]
        text = f'{statistics.median(values):{form}}'
        if len(values) > 1:
            text += f' ({min(values):{form}}–{max(values):{form}})'
        return text


def clients(cell):
    return '1 client' if cell.clients == 1 else f'{cell.clients} clients'


def contender(cell):
    more = [clients(cell)]
    if cell.sync != 'on':
        more.append('not synchronous')
    if cell.queues:
        more.append('1 queue' if cell.queues == 1 else f'{cell.queues:,} queues')
    if cell.script.startswith('cycle'):
        more.append(f'backlog {cell.backlog:,}')
    return f'{TITLES[cell.who]}, {", ".join(more)}'


def work_of(cell):
    return f'{contender(cell)}: {cell.script}'


def verdict(met):
    return 'yes' if met else '**no**'


def ratio_line(results, row):
    ours, base = results.values(row.cell, row.column), results.values(row.base, row.column)
    ratios = [ours[number] / base[number] if row.column == 'rate' else
              base[number] / ours[number] for number in ours if number in base]
    if not ratios:
        return None
    ratio = statistics.median(ratios)
    spread = f' ({min(ratios):.2f}–{max(ratios):.2f})' if len(ratios) > 1 else ''
    return [row.work, contender(row.cell), results.text(row.cell, row.column), work_of(row.base),
            results.text(row.base, row.column), f'{ratio:.2f}{spread}',
            *(['', ''] if row.at_least is None else
              [f'≥ {row.at_least:g}', verdict(ratio >= row.at_least)])]


def limit_line(results, row):
    parts = [results.median(cell, row.column) for cell in row.cells]
    if None in parts:
        return None
    total = sum(parts)
    text = (results.text(row.cells[0], row.column) if len(parts) == 1 else
            f'{total:{NUMBERS[row.column]}} = ' +
            ' + '.join(f'{part:{NUMBERS[row.column]}}' for part in parts))
    target = ['', ''] if row.limit is None else [
        f'{"≥" if row.least else "≤"} {row.limit:g}',
        verdict(total >= row.limit if row.least else total <= row.limit)]
    return [row.work, contender(row.cells[-1]), text, *target]


LIMIT_HEAD = ['what', 'of', 'measured', 'target', 'met']


def ratio_head(unit):
    return ['work', 'of', unit, 'against', unit, 'ratio', 'target', 'met']


# The tables of a case: rows of which column (None: of sums), head, how a line is made.
TABLES = (('rate', ratio_head('jobs/s'), ratio_line),
          ('cpu_s_100k', ratio_head('server s per 100,000'), ratio_line),
          ('instructions', ratio_head('instructions a job'), ratio_line),
          (None, LIMIT_HEAD, limit_line))


def table(head, lines):
    yield '| ' + ' | '.join(head) + ' |'
    yield '|' + '---|' * len(head)
    for line in lines:
        yield '| ' + ' | '.join(line) + ' |'


def report(results, told):
    yield '## Measured'
    yield ''
    asked = []
    for line in told.splitlines():
        name, _, text = line.partition(': ')
        yield f'* {name}: {text}'
        if name == 'cases':
            asked = text.split()
    for case in (CASES[name] for name in asked):
        for column, head, form in TABLES:
            lines = [form(results, row) for row in case.rows
                     if (row.column if isinstance(row, Row) else None) == column]
            lines = [line for line in lines if line]
            if lines:
                yield from ('', f'### {case.title}', '', *table(head, lines))
    columns = ['rate', 'p50_ms', 'p95_ms', 'p99_ms', 'wal_per_job', 'cpu_s_100k', 'others_cores']
    lines = [[contender(cell), cell.script, *(results.text(cell, column) for column in columns)]
             for cell in cells_of(CASES)
             if any(results.values(cell, column) for column in columns)]
    if lines:
        yield from ('', '### All that ran: median (smallest–largest)', '')
        yield from table(
            ['contender', 'work', 'jobs/s', 'p50 ms', 'p95 ms', 'p99 ms', 'WAL bytes a job',
             'server s per 100,000', 'cores used by others'], lines)
    if results.errors:
        yield from ('', '### Errors', '')
        yield from (f'* round {number}, {cell}: {error}' for number, cell, error in results.errors)


# ---- plots ----

def gnuplot(path, commands, data, size='900,540'):
    """data: blocks of lines, which the commands call $data0, $data1 and so on."""
    blocks = '\n'.join(f'$data{n} << EOD\n' + '\n'.join(lines) + '\nEOD'
                       for n, lines in enumerate(data))
    script = f"""set terminal pngcairo noenhanced size {size} font 'sans,11'
set output '{path}'
set grid ytics
set key outside bottom center horizontal
set border 3
set tics nomirror
set yrange [0:*]
{blocks}
{commands}
"""
    subprocess.run(['gnuplot'], input=script, text=True, check=True)


def curves(titles, with_='linespoints pt 7 lw 2'):
    return 'plot ' + ', '.join(f"$data{n} using 1:2 with {with_} title '{title}'"
                               for n, title in enumerate(titles))


def plot_clients(path, results):
    lines, titles = [], []
    for title, cell in (('bare INSERT (the limit)', lambda c: put('limit', c)),
                        ('pg_jobq: complete_and_dequeue(1)', lambda c: take('pg_jobq', c, 'cad1')),
                        ('pg_jobq: dequeue(1), complete(1)', lambda c: take('pg_jobq', c)),
                        ('SKIP LOCKED, visibility timeout', lambda c: take('visibility', c))):
        points = [(c, results.median(cell(c), 'rate')) for c in COUNTS]
        points = [f'{c} {rate}' for c, rate in points if rate]
        if len(points) > 3:
            lines.append(points)
            titles.append(title)
    if lines:
        gnuplot(f'{path}-clients.png', "set title 'Jobs a second, one by one, durable'\n"
                "set xlabel 'clients'\nset logscale x 2\nset xrange [1:64]\n" + curves(titles), lines)


def plot_held(path):
    file = Path(f'{path}-held.csv')
    if not file.exists():
        return
    courses = {}
    with open(file, encoding='utf-8', newline='') as rows:
        for row in csv.DictReader(rows):
            title = TITLES[row['who']] + (', no snapshot' if row.get('script') == 'free1' else '')
            courses.setdefault(title, []).append(int(row['jobs']))
    lines = []
    for counts in courses.values():
        # means of five seconds
        lines.append([f'{n + 2.5} {statistics.mean(counts[n:n + 5])}'
                      for n in range(0, len(counts) - 4, 5)])
    gnuplot(f'{path}-held.png', "set title 'Jobs a second while a snapshot is held'\n"
            "set xlabel 'seconds'\n" + curves(courses, 'lines lw 2'), lines)


def plot_life(path, results):
    """Four small ones: WAL above, processor time below, batches to the right."""
    data, plots = [], []
    for column, factor, what in (('wal_per_job', 1, 'bytes of WAL a job'),
                                 ('cpu_s_100k', 10, 'microseconds of the server a job')):
        for batch, work in ((1, 'one by one'), (100, 'by the hundred')):
            lines = []
            for who in ('pg_jobq', 'delete', 'visibility', 'pgq'):
                cells = put(who, 8, batch), take(who, 1 if who == 'pgq' else 8, f'life{batch}')
                parts = [results.median(cell, column) for cell in cells]
                if None not in parts:
                    lines.append(' '.join([who, *(f'{factor * n:.1f}' for n in parts)]))
            plots.append(f"set title '{what}, {work}'\nplot $data{len(data)} using 2:xtic(1) "
                         "title 'enqueue', '' using 3 title 'take and complete'")
            data.append(lines)
    if all(len(lines) > 1 for lines in data):
        gnuplot(f'{path}-life.png', 'set style data histogram\nset style histogram rowstacked\n'
                'set style fill solid 0.8 border -1\nset boxwidth 0.6\n'
                'set multiplot layout 2,2\n' + '\n'.join(plots), data, '900,760')


def main():
    path = sys.argv[1]
    results = Results(path)
    text = '\n'.join(report(results, Path(f'{path}.txt').read_text(encoding='utf-8')))
    Path(f'{path}.md').write_text(text + '\n', encoding='utf-8')
    print(text)
    if shutil.which('gnuplot'):
        plot_clients(path, results)
        plot_held(path)
        plot_life(path, results)


if __name__ == '__main__':
    main()
