/*
 * cron_test.c: cron expressions against a model: what is refused and why, and
 * the ticks of random expressions in zones that change, compared with a walk
 * over every minute. Prints TAP. The model never reads an expression: it has
 * made it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/cronexpr.h"
#include "unit.h"

#define MINUTE			60
#define HOUR			3600
#define DAY				86400
#define START			INT64_C(1800000000) /* 2027-01-15 08:00 */
#define WALK_DAYS		40
#define ROUNDS			400

/* ---- zones ---- */

/* Ascending moments at which another offset begins. */
typedef struct Zone
{
	int64_t		first;			/* offset before all of them */
	int			n;
	int64_t		at[3];
	int64_t		offset[3];
} Zone;

static bool
look(const void *zone, int64_t at, int64_t *offset, int64_t *until)
{
	const Zone *z = zone;

	*offset = z->first;
	*until = JOBQ_CRON_NEVER;
	for (int i = 0; i < z->n; i++)
	{
		if (at < z->at[i])
		{
			*until = z->at[i];
			return true;
		}
		*offset = z->offset[i];
	}
	return true;
}

static bool
look_nowhere(const void *zone, int64_t at, int64_t *offset, int64_t *until)
{
	(void) zone;
	(void) at;
	(void) offset;
	(void) until;
	return false;
}

static int64_t
local_time(const Zone *zone, int64_t at)
{
	int64_t		offset;
	int64_t		until;

	(void) look(zone, at, &offset, &until);
	return at + offset;
}

static int64_t
next(const char *expression, const Zone *zone, int64_t after)
{
	JobqCron	cron;
	JobqCronFault fault;
	JobqCronZone where = {look, zone};

	if (!jobq_cron_parse(expression, &cron, &fault))
	{
		printf("# \"%s\": %s\n", expression, fault.why);
		return -1;
	}
	return jobq_cron_next(&cron, &where, after);
}

/* ---- what is refused ---- */

static void
test_faults(void)
{
	static const struct
	{
		const char *expression;
		const char *field;		/* NULL: all of it */
		const char *why;		/* a part of it */
	}			cases[] = {
		{"", NULL, "five fields"},
		{"* * * *", NULL, "five fields"},
		{"* * * * * * *", NULL, "five fields"},
		{"@never", NULL, "@hourly"},
		{"@daily *", NULL, "@hourly"},
		{"@DAILY", NULL, "@hourly"},
		{"60 * * * *", "minute", "\"60\" is not between 0 and 59"},
		{"-1 * * * *", "minute", "not between"},
		{"1- * * * *", "minute", "not between"},
		{"* 24 * * *", "hour", "\"24\" is not between 0 and 23"},
		{"* * 0 * *", "day of month", "not between 1 and 31"},
		{"* * 32 * *", "day of month", "not between 1 and 31"},
		{"* * * 13 *", "month", "not between 1 and 12, nor a name"},
		{"* * * 0 *", "month", "nor a name"},
		{"* * * foo *", "month", "\"foo\" is not"},
		{"* * * january *", "month", "\"january\" is not"},
		{"* * * * 8", "day of week", "not between 0 and 7"},
		{"* * * * monday", "day of week", "\"monday\" is not"},
		{"* * * * mon-", "day of week", "\"\" is not"},
		{"* * L * *", "day of month", "\"L\" is not"},
		{"* * ? * *", "day of month", "\"?\" is not"},
		{"* * * * fri#2", "day of week", "\"fri#2\" is not"},
		{"60 * * * * *", "second", "\"60\" is not between 0 and 59"},
		{"0 60 * * * *", "minute", "\"60\""},
		{"1,,2 * * * *", "minute", "is empty"},
		{", * * * *", "minute", "is empty"},
		{"1, * * * *", "minute", "is empty"},
		{"*/0 * * * *", "minute", "step"},
		{"*/60 * * * *", "minute", "step"},
		{"*/ * * * *", "minute", "step"},
		{"*/x * * * *", "minute", "step"},
		{"1/2/3 * * * *", "minute", "step"},
		{"*-5 * * * *", "minute", "\"*\" is not"},
		{"** * * * *", "minute", "\"**\" is not"},
		{"5-1 * * * *", "minute", "\"5-1\" goes backwards"},
		{"* 22-2 * * *", "hour", "goes backwards"},
		{"* * * dec-jan *", "month", "goes backwards"},
		{"* * * * sat-mon", "day of week", "goes backwards"},
		{"1.5 * * * *", "minute", "\"1.5\" is not"},
		{"0001 * * * *", "minute", "\"0001\" is not"},
		{"0 0 30 2 *", "day of month", "no such date"},
		{"0 0 31 2,4,6,9,11 *", "day of month", "no such date"},
		{"0 0 30-31 feb *", "day of month", "no such date"},
	};
	char		longer[JOBQ_CRON_LENGTH + 8];
	JobqCron	cron;
	JobqCronFault fault;

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		bool		parsed = jobq_cron_parse(cases[i].expression, &cron,
											 &fault);
		bool		right = !parsed &&
			(cases[i].field == NULL ? fault.field == NULL :
			 fault.field != NULL && strcmp(fault.field, cases[i].field) == 0) &&
			strstr(fault.why, cases[i].why) != NULL;
		char		name[64];

		snprintf(name, sizeof(name), "refused: %s", cases[i].expression);
		ok(right, name);
		if (!right && !parsed)
			printf("# field %s: %s\n", fault.field != NULL ? fault.field : "-",
				   fault.why);
	}
	memset(longer, '1', sizeof(longer) - 1);
	longer[sizeof(longer) - 1] = '\0';
	memcpy(longer + sizeof(longer) - 9, " * * * *", 8);
	ok(!jobq_cron_parse(longer, &cron, &fault) &&
	   strstr(fault.why, "too long") != NULL, "refused: too long");
	longer[JOBQ_CRON_LENGTH] = '\0';
	ok(!jobq_cron_parse(longer, &cron, &fault), "refused: just as long as may be");
}

/* ---- what it means, where nothing changes ---- */

static void
test_meaning(void)
{
	static const Zone utc = {0, 0, {0}, {0}};
	static const struct
	{
		const char *expression;
		int64_t		after;
		int64_t		expected;
	}			cases[] = {
		/* START is Friday, 2027-01-15 08:00 */
		{"* * * * *", START, START + MINUTE},
		{"* * * * *", START - 1, START},
		{"* * * * * *", START, START + 1},
		{"*/20 * * * * *", START + 21, START + 40},
		{"30 15 8 * * *", START, START + 15 * MINUTE + 30},
		{"  15\t8  *  *   * ", START, START + 15 * MINUTE},
		{"0 8 * * *", START, START + DAY},
		{"5/20 * * * *", START + 5 * MINUTE, START + 25 * MINUTE},
		{"5/20 * * * *", START + 45 * MINUTE, START + HOUR + 5 * MINUTE},
		{"10-20/5 8 * * *", START + 10 * MINUTE, START + 15 * MINUTE},
		{"10-20/5 8 * * *", START + 20 * MINUTE, START + DAY + 10 * MINUTE},
		{"1,50,3-5 * * * *", START + MINUTE, START + 3 * MINUTE},
		{"1,50,3-5 * * * *", START + 5 * MINUTE, START + 50 * MINUTE},
		{"0 0 * * mon", START, START + 64 * HOUR},
		{"0 0 * * Mon", START, START + 64 * HOUR},
		{"0 0 * * SUN", START, START + 40 * HOUR},
		{"0 0 * * 0", START, START + 40 * HOUR},
		{"0 0 * * 7", START, START + 40 * HOUR},
		{"0 0 * * fri-sun", START, START + 16 * HOUR},
		{"0 0 * * fri-sun", START + 40 * HOUR, START + 6 * DAY + 16 * HOUR},
		{"0 0 1 feb *", START, START + 16 * DAY + 16 * HOUR},
		{"0 0 1 JAN-mar *", START, START + 16 * DAY + 16 * HOUR},
		{"0 0 31 * *", START, START + 15 * DAY + 16 * HOUR},
		{"0 0 31 2-3 *", START, START + 74 * DAY + 16 * HOUR},
		{"0 0 29 2 *", START, INT64_C(1835395200)}, /* 2028-02-29 */
		{"0 0 29 2 *", INT64_C(3855168000), INT64_C(3981312000)},	/* 2096 */
		{"0 0 29 2 *", INT64_C(3981312000), INT64_C(4233686400)},	/* 2104 */
		/* both days are restricted: either is enough */
		{"0 0 16 * mon", START, START + 16 * HOUR},
		{"0 0 16 * mon", START + 16 * HOUR, START + 64 * HOUR},
		/* one begins with a star: both must match */
		{"0 0 */2 * mon", START, START + 9 * DAY + 16 * HOUR},
		{"0 0 16 * */6", START, START + 16 * HOUR},
		{"0 0 17 * */6", START, START + 40 * HOUR},
		{"0 0 18 * */6", START, INT64_C(1808006400)},	/* 2027-04-18 */
		{"@yearly", START, INT64_C(1830297600)},
		{"@annually", START, INT64_C(1830297600)},
		{"@monthly", START, START + 16 * DAY + 16 * HOUR},
		{"@weekly", START, START + 40 * HOUR},
		{"@daily", START, START + 16 * HOUR},
		{"@midnight", START, START + 16 * HOUR},
		{"@hourly", START, START + HOUR},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		int64_t		got = next(cases[i].expression, &utc, cases[i].after);

		ok(got == cases[i].expected, cases[i].expression);
		if (got != cases[i].expected)
			printf("# got %lld, expected %lld\n", (long long) got,
				   (long long) cases[i].expected);
	}
}

/* ---- the clock is changed ---- */

static void
test_changes(void)
{
	/* 02:00 becomes 03:00 on START's day + 1, and back a day later */
	static const int64_t gap = START + 18 * HOUR;
	static const int64_t fold = START + 42 * HOUR + HOUR;
	static const Zone zone = {0, 2, {START + 18 * HOUR, START + 43 * HOUR - HOUR},
	{HOUR, 0}};
	static const Zone day_less = {-10 * HOUR, 1, {START + 26 * HOUR}, {14 * HOUR}};
	JobqCron	cron;
	JobqCronFault fault;
	JobqCronZone nowhere = {look_nowhere, NULL};

	ok(next("30 2 * * *", &zone, START) == gap,
	   "a time that does not exist runs when the gap ends");
	ok(next("10,30 2 * * *", &zone, gap) == fold - HOUR - 50 * MINUTE,
	   "two of them in one gap run once");
	ok(next("30 2,3 * * *", &zone, gap) == gap + 30 * MINUTE,
	   "what comes after the gap runs, too");
	ok(next("0 3 * * *", &zone, gap - 1) == gap &&
	   next("0 3 * * *", &zone, gap) == fold,
	   "the end of the gap is a time of its own");
	ok(next("59 1 * * *", &zone, START) == gap - MINUTE,
	   "what comes before the gap runs as ever");
	ok(next("0 30 2 * * *", &zone, START) == gap, "the same with seconds");
	ok(next("*/30 * * * *", &zone, gap - 30 * MINUTE) == gap &&
	   next("*/30 * * * *", &zone, gap) == gap + 30 * MINUTE,
	   "a wildcard runs by elapsed time over the gap");
	ok(next("30 2 * * *", &zone, gap) == fold - HOUR - 30 * MINUTE,
	   "a time that comes twice runs the first time");
	ok(next("30 2 * * *", &zone, fold - HOUR - 30 * MINUTE) ==
	   fold + 23 * HOUR + 30 * MINUTE,
	   "and not the second time");
	ok(next("30 2 * * *", &zone, fold - HOUR) == fold + 23 * HOUR + 30 * MINUTE,
	   "also when we come between the two");
	ok(next("0 3 * * *", &zone, fold - HOUR) == fold,
	   "what comes after it runs once");
	ok(next("*/30 2 * * *", &zone, fold - HOUR - 30 * MINUTE) == fold - HOUR &&
	   next("*/30 2 * * *", &zone, fold - HOUR) == fold - 30 * MINUTE,
	   "a wildcard runs both times");
	ok(next("0 12 * * *", &day_less, START) == START + 14 * HOUR &&
	   next("0 12 * * *", &day_less, START + 14 * HOUR) == START + 26 * HOUR &&
	   next("0 12 * * *", &day_less, START + 26 * HOUR) == START + 38 * HOUR,
	   "a day that does not exist is a gap, too");
	ok(jobq_cron_parse("* * * * *", &cron, &fault) &&
	   jobq_cron_next(&cron, &nowhere, START) == JOBQ_CRON_NEVER,
	   "no zone, no tick");
}

/* ---- the model ---- */

typedef struct Model
{
	bool		star[5];
	bool		wanted[5][64];
} Model;

static const int field_min[5] = {0, 0, 1, 1, 0};
static const int field_max[5] = {59, 23, 31, 12, 6};

/* A random field: a star, perhaps with a step, or some values. */
static void
make_field(Model *model, int field, char **text)
{
	int			span = field_max[field] - field_min[field] + 1;
	const char *comma = "";

	model->star[field] = random_below(3) == 0;
	if (model->star[field])
	{
		int			step = random_below(2) == 0 ? 1 :
			1 + (int) random_below((uint32_t) span - 1);

		*text += sprintf(*text, step == 1 ? "* " : "*/%d ", step);
		for (int v = field_min[field]; v <= field_max[field]; v += step)
			model->wanted[field][v] = true;
		return;
	}
	for (int n = 1 + (int) random_below(4); n > 0; n--)
	{
		int			from = field_min[field] + (int) random_below((uint32_t) span);
		int			to = from;

		if (random_below(3) == 0)
			to += (int) random_below((uint32_t) (field_max[field] - from + 1));
		*text += sprintf(*text, to > from ? "%s%d-%d" : "%s%d", comma, from, to);
		for (int v = from; v <= to; v++)
			model->wanted[field][v] = true;
		comma = ",";
	}
	*text += sprintf(*text, " ");
}

/* Step by step, as slow as can be: days by adding one at a time. */
typedef struct Date
{
	int64_t		day;
	int			year;
	int			month;
	int			mday;
} Date;

static void
next_day(Date *date)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
	int			n = days[date->month - 1];

	if (date->month == 2 && date->year % 4 == 0)
		n = 29;					/* 2027 and 2028 only */
	date->day++;
	if (++date->mday <= n)
		return;
	date->mday = 1;
	if (++date->month <= 12)
		return;
	date->month = 1;
	date->year++;
}

static bool
model_wants(const Model *model, int64_t local, Date *date)
{
	int			of_day;
	bool		by_date;
	bool		by_week;

	if (local / DAY < date->day)
		*date = (Date) {START / DAY - 14, 2027, 1, 1};
	while (date->day < local / DAY)
		next_day(date);
	of_day = (int) (local % DAY);
	by_date = model->wanted[2][date->mday];
	by_week = model->wanted[4][(date->day + 4) % 7];
	return of_day % MINUTE == 0 && model->wanted[0][of_day / MINUTE % 60] &&
		model->wanted[1][of_day / HOUR] && model->wanted[3][date->month] &&
		(model->star[2] || model->star[4] ? by_date && by_week :
		 by_date || by_week);
}

/*
 * Is this minute a tick? By elapsed time if its wall-clock time matches; else
 * if that has not been shown before, or a matching one has just been left out.
 * Nothing changes by more than two hours, nor twice within three.
 */
static bool
model_ticks(const Model *model, const Zone *zone, int64_t at, Date *date)
{
	int64_t		local = local_time(zone, at);
	int64_t		before = local_time(zone, at - MINUTE);

	if (model->star[0] || model->star[1])
		return model_wants(model, local, date);
	for (int64_t left_out = before + MINUTE; left_out < local;
		 left_out += MINUTE)
	{
		if (model_wants(model, left_out, date))
			return true;
	}
	if (!model_wants(model, local, date))
		return false;
	for (int64_t earlier = at - 3 * HOUR; earlier < at; earlier += MINUTE)
	{
		if (local_time(zone, earlier) == local)
			return false;
	}
	return true;
}

static void
random_zone(Zone *zone)
{
	static const int64_t steps[] = {-2 * HOUR, -HOUR, -30 * MINUTE,
	30 * MINUTE, HOUR, 2 * HOUR};
	int64_t		at = START;

	zone->first = (int64_t) random_below(56) * 30 * MINUTE - 14 * HOUR;
	zone->n = (int) random_below(4);
	for (int i = 0; i < zone->n; i++)
	{
		at += DAY + (int64_t) random_below(12 * 24 * 2) * 30 * MINUTE;
		zone->at[i] = at;
		zone->offset[i] = (i == 0 ? zone->first : zone->offset[i - 1]) +
			steps[random_below(6)];
	}
}

static void
test_model(void)
{
	int			wrong = 0;
	int			ticks = 0;
	int			parsed = 0;

	for (int round = 0; round < ROUNDS; round++)
	{
		Model		model = {{false}, {{false}}};
		Zone		zone = {0};
		char		text[400];
		char	   *end = text;
		JobqCron	cron;
		JobqCronFault fault;
		JobqCronZone where = {look, &zone};
		Date		date = {START / DAY - 14, 2027, 1, 1};
		int64_t		tick;

		for (int field = 0; field < 5; field++)
			make_field(&model, field, &end);
		random_zone(&zone);
		if (!jobq_cron_parse(text, &cron, &fault))
			continue;			/* a date that does not exist */
		parsed++;
		tick = jobq_cron_next(&cron, &where, START - 1);
		for (int64_t at = START; at < START + WALK_DAYS * DAY; at += MINUTE)
		{
			bool		expected = model_ticks(&model, &zone, at, &date);

			if (expected != (tick == at) && wrong++ == 0)
				printf("# \"%s\": %s tick at %lld (offset %lld)\n", text,
					   expected ? "no" : "a", (long long) at,
					   (long long) (local_time(&zone, at) - at));
			if (tick == at)
			{
				tick = jobq_cron_next(&cron, &where, tick);
				ticks++;
			}
			else if (tick < at)
				break;
		}
	}
	printf("# %d expressions, %d ticks\n", parsed, ticks);
	ok(wrong == 0, "ticks are those of the model");
	ok(parsed > ROUNDS / 2 && ticks > 10 * ROUNDS, "there were enough of them");
}

int
main(void)
{
	test_faults();
	test_meaning();
	test_changes();
	test_model();
	return done_testing();
}
