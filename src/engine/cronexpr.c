/*
 * cronexpr.c: reads cron expressions and finds the next moment that one means.
 * Pure: no server headers, no memory, no clock; a time zone is a function that
 * the caller gives.
 */
#include "engine/cronexpr.h"

#include <stdio.h>
#include <string.h>

#define SECONDS_PER_DAY		86400
#define HORIZON				(INT64_C(100) * 366 * SECONDS_PER_DAY)

/* No change of a zone shows a wall-clock time again so long after it. */
#define LOOK_BACK			(INT64_C(2) * SECONDS_PER_DAY)

#define YEAR_2000			INT64_C(946684800)

typedef struct Field
{
	const char *name;
	int			min;
	int			max;
	const char *words;			/* three letters each; NULL: numbers only */
	int			first_word;		/* the value of the first one */
} Field;

typedef enum FieldNo
{
	SECOND,
	MINUTE,
	HOUR,
	DAY,
	MONTH,
	WEEKDAY,
	NFIELDS
} FieldNo;

static const Field fields[NFIELDS] = {
	[SECOND] = {"second", 0, 59, NULL, 0},
	[MINUTE] = {"minute", 0, 59, NULL, 0},
	[HOUR] = {"hour", 0, 23, NULL, 0},
	[DAY] = {"day of month", 1, 31, NULL, 0},
	[MONTH] = {"month", 1, 12, "janfebmaraprmayjunjulaugsepoctnovdec", 1},
	[WEEKDAY] = {"day of week", 0, 7, "sunmontuewedthufrisat", 0},
};

static const char *const shortcuts[][2] = {
	{"@yearly", "0 0 1 1 *"},
	{"@annually", "0 0 1 1 *"},
	{"@monthly", "0 0 1 * *"},
	{"@weekly", "0 0 * * 0"},
	{"@daily", "0 0 * * *"},
	{"@midnight", "0 0 * * *"},
	{"@hourly", "0 * * * *"},
};

/* A piece of the expression. */
typedef struct Piece
{
	const char *start;
	size_t		length;
} Piece;

/* ---- reading ---- */

static bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static char
lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char) (c - 'A' + 'a') : c;
}

static bool
wrong(JobqCronFault *fault, const Field *field, Piece piece, const char *why)
{
	fault->field = field->name;
	snprintf(fault->why, sizeof(fault->why), "\"%.*s\" %s",
			 (int) piece.length, piece.start, why);
	return false;
}

static bool
out_of_range(JobqCronFault *fault, const Field *field, Piece piece)
{
	char		why[80];

	snprintf(why, sizeof(why), "is not between %d and %d%s", field->min,
			 field->max, field->words != NULL ? ", nor a name" : "");
	return wrong(fault, field, piece, why);
}

/* Cut off what is before the first `separator`; false when there is none. */
static bool
cut(Piece *rest, char separator, Piece *first)
{
	const char *found = memchr(rest->start, separator, rest->length);

	*first = *rest;
	if (found == NULL)
	{
		rest->start += rest->length;
		rest->length = 0;
		return false;
	}
	first->length = (size_t) (found - rest->start);
	rest->start = found + 1;
	rest->length -= first->length + 1;
	return true;
}

/* Digits only, three at most; -1 for anything else. */
static int
read_number(Piece piece)
{
	int			n = 0;

	if (piece.length == 0 || piece.length > 3)
		return -1;
	for (size_t i = 0; i < piece.length; i++)
	{
		if (piece.start[i] < '0' || piece.start[i] > '9')
			return -1;
		n = n * 10 + (piece.start[i] - '0');
	}
	return n;
}

/* A name's value, or -1. */
static int
read_word(const Field *field, Piece piece)
{
	if (field->words == NULL || piece.length != 3)
		return -1;
	for (const char *word = field->words; *word != '\0'; word += 3)
	{
		if (lower(piece.start[0]) == word[0] &&
			lower(piece.start[1]) == word[1] &&
			lower(piece.start[2]) == word[2])
			return field->first_word + (int) (word - field->words) / 3;
	}
	return -1;
}

/* A number or a name within the field's range, or -1. */
static int
read_value(const Field *field, Piece piece)
{
	int			value = read_number(piece);

	if (value < 0)
		value = read_word(field, piece);
	return value >= field->min && value <= field->max ? value : -1;
}

/* What comes before the step: all, a value or a range. */
static bool
read_range(const Field *field, Piece range, bool has_step, int *from, int *to,
		   JobqCronFault *fault)
{
	Piece		last = range;
	Piece		first;

	*from = field->min;
	*to = field == &fields[WEEKDAY] ? 6 : field->max;
	if (range.length == 1 && range.start[0] == '*')
		return true;
	if (!cut(&last, '-', &first))
		last = first;
	*from = read_value(field, first);
	if (*from < 0)
		return out_of_range(fault, field, first);
	if (last.start == first.start)
	{
		/* a value with a step goes on to the end */
		if (!has_step)
			*to = *from;
		return true;
	}
	*to = read_value(field, last);
	if (*to < 0)
		return out_of_range(fault, field, last);
	if (field == &fields[WEEKDAY] && *to == 0 && *from > 0)
		*to = 7;				/* a week may end with Sunday */
	if (*to < *from)
		return wrong(fault, field, range, "goes backwards");
	return true;
}

/* One element of a list. */
static bool
read_element(const Field *field, Piece element, uint64_t *bits,
			 JobqCronFault *fault)
{
	Piece		step = element;
	Piece		range;
	bool		has_step = cut(&step, '/', &range);
	int			by = 1;
	int			from;
	int			to;

	if (element.length == 0)
		return wrong(fault, field, element, "is empty");
	if (!read_range(field, range, has_step, &from, &to, fault))
		return false;
	if (has_step)
	{
		by = read_number(step);
		if (by < 1 || by > field->max)
			return wrong(fault, field, element,
						 "has no step from 1 up to the largest value");
	}
	for (int value = from; value <= to; value += by)
		*bits |= UINT64_C(1) << (field == &fields[WEEKDAY] ? value % 7 : value);
	return true;
}

static bool
read_field(const Field *field, Piece list, uint64_t *bits,
		   JobqCronFault *fault)
{
	bool		more = true;

	*bits = 0;
	while (more)
	{
		Piece		element;

		more = cut(&list, ',', &element);
		if (!read_element(field, element, bits, fault))
			return false;
	}
	return true;
}

/* Split at blanks; how many pieces there are, at most max + 1. */
static int
split(const char *text, Piece *pieces, int max)
{
	int			n = 0;

	for (;;)
	{
		size_t		length = 0;

		while (is_blank(*text))
			text++;
		if (*text == '\0' || n > max)
			return n;
		while (text[length] != '\0' && !is_blank(text[length]))
			length++;
		if (n < max)
			pieces[n] = (Piece) {text, length};
		n++;
		text += length;
	}
}

static const char *
expand_shortcut(const char *text)
{
	for (size_t i = 0; i < sizeof(shortcuts) / sizeof(shortcuts[0]); i++)
	{
		if (strcmp(text, shortcuts[i][0]) == 0)
			return shortcuts[i][1];
	}
	return text;
}

static bool
refuse(JobqCronFault *fault, const char *why)
{
	fault->field = NULL;
	snprintf(fault->why, sizeof(fault->why), "%s", why);
	return false;
}

static int64_t next_local(const JobqCron *cron, int64_t from, int64_t limit);

bool
jobq_cron_parse(const char *text, JobqCron *cron, JobqCronFault *fault)
{
	Piece		pieces[NFIELDS];
	bool		star[NFIELDS] = {false};
	uint64_t	bits[NFIELDS] = {[SECOND] = 1};
	int			n;

	if (strlen(text) > JOBQ_CRON_LENGTH)
		return refuse(fault, "it is too long");
	if (text[0] == '@' && expand_shortcut(text) == text)
		return refuse(fault, "of the words that begin with @ only @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly are known");
	n = split(expand_shortcut(text), pieces, NFIELDS);
	if (n != NFIELDS && n != NFIELDS - 1)
		return refuse(fault, "it must have five fields, minute, hour, day of month, month and day of week, or six, with the second first");

	for (int f = NFIELDS - n; f < NFIELDS; f++)
	{
		Piece		piece = pieces[f - (NFIELDS - n)];

		star[f] = piece.start[0] == '*';
		if (!read_field(&fields[f], piece, &bits[f], fault))
			return false;
	}
	cron->seconds = bits[SECOND];
	cron->minutes = bits[MINUTE];
	cron->hours = bits[HOUR];
	cron->days = bits[DAY];
	cron->months = bits[MONTH];
	cron->weekdays = bits[WEEKDAY];
	cron->either_day = !star[DAY] && !star[WEEKDAY];
	cron->elapsed = star[SECOND] || star[MINUTE] || star[HOUR];
	if (next_local(cron, YEAR_2000, YEAR_2000 + HORIZON) == JOBQ_CRON_NEVER)
	{
		refuse(fault, "there is no such date in any of its months");
		fault->field = fields[DAY].name;
		return false;
	}
	return true;
}

/* ---- the calendar ---- */

static bool
wanted(uint64_t bits, int value)
{
	return (bits >> value & 1) != 0;
}

/* The smallest value from `from` on, or -1. */
static int
next_value(uint64_t bits, int from)
{
	for (int value = from; value < 64 && bits >> value != 0; value++)
	{
		if (wanted(bits, value))
			return value;
	}
	return -1;
}

static int64_t
floor_div(int64_t a, int64_t b)
{
	return a / b - (a % b < 0);
}

static bool
is_leap(int64_t year)
{
	return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static int
days_in(int64_t year, int month)
{
	static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};

	return days[month - 1] + (month == 2 && is_leap(year));
}

/*
 * The date of a day counted from 1970-01-01; years counted from March on end
 * with the leap day.
 */
static void
date_of(int64_t day, int64_t *year, int *month, int *mday)
{
	int64_t		from_era = day + 719468;	/* since 0000-03-01 */
	int64_t		era = floor_div(from_era, 146097);
	int64_t		of_era = from_era - era * 146097;
	int64_t		year_of_era = (of_era - of_era / 1460 + of_era / 36524 -
							   of_era / 146096) / 365;
	int64_t		of_year = of_era - (365 * year_of_era + year_of_era / 4 -
									year_of_era / 100);
	int64_t		from_march = (5 * of_year + 2) / 153;

	*mday = (int) (of_year - (153 * from_march + 2) / 5) + 1;
	*month = (int) (from_march < 10 ? from_march + 3 : from_march - 9);
	*year = year_of_era + era * 400 + (*month <= 2);
}

static bool
day_wanted(const JobqCron *cron, int64_t day, int mday)
{
	/* 1970-01-01 was a Thursday */
	int			weekday = (int) (day + 4 - floor_div(day + 4, 7) * 7);
	bool		by_date = wanted(cron->days, mday);
	bool		by_week = wanted(cron->weekdays, weekday);

	return cron->either_day ? by_date || by_week : by_date && by_week;
}

/* The first time of day from `from` on, in seconds, or -1. */
static int
next_in_day(const JobqCron *cron, int from)
{
	int			minute_from = from / 60 % 60;
	int			second_from = from % 60;

	for (int hour = next_value(cron->hours, from / 3600); hour >= 0;
		 hour = next_value(cron->hours, hour + 1))
	{
		if (hour != from / 3600)
			minute_from = second_from = 0;
		for (int minute = next_value(cron->minutes, minute_from); minute >= 0;
			 minute = next_value(cron->minutes, minute + 1))
		{
			int			second;

			if (minute != minute_from)
				second_from = 0;
			second = next_value(cron->seconds, second_from);
			if (second >= 0)
				return hour * 3600 + minute * 60 + second;
		}
	}
	return -1;
}

/*
 * The first matching wall-clock time in [from, limit], written as the moment
 * at which UTC shows it.
 */
static int64_t
next_local(const JobqCron *cron, int64_t from, int64_t limit)
{
	int64_t		day = floor_div(from, SECONDS_PER_DAY);
	int			of_day = (int) (from - day * SECONDS_PER_DAY);

	while (day * SECONDS_PER_DAY <= limit)
	{
		int64_t		year;
		int			month;
		int			mday;

		date_of(day, &year, &month, &mday);
		if (!wanted(cron->months, month))
		{
			day += days_in(year, month) - mday + 1;
			of_day = 0;
			continue;
		}
		if (day_wanted(cron, day, mday))
		{
			int			found = next_in_day(cron, of_day);

			if (found >= 0)
				return day * SECONDS_PER_DAY + found;
		}
		day++;
		of_day = 0;
	}
	return JOBQ_CRON_NEVER;
}

/*
 * Goes from one change of the zone to the next. shown: the wall clock has
 * shown all times before that, as far as we have come.
 */
int64_t
jobq_cron_next(const JobqCron *cron, const JobqCronZone *zone, int64_t after)
{
	int64_t		limit = after + HORIZON;
	int64_t		at = after - LOOK_BACK;
	int64_t		shown = INT64_MIN;

	while (at <= limit)
	{
		int64_t		offset;
		int64_t		until;
		int64_t		from;
		int64_t		found;

		if (!zone->look(zone->zone, at, &offset, &until))
			return JOBQ_CRON_NEVER;
		if (!cron->elapsed && at > after && shown < at + offset &&
			next_local(cron, shown, at + offset) < at + offset)
			return at;
		from = (at > after ? at : after + 1) + offset;
		if (!cron->elapsed && from < shown)
			from = shown;
		if (until > after)
		{
			found = next_local(cron, from, limit + offset);
			if (found != JOBQ_CRON_NEVER && found - offset < until)
				return found - offset;
		}
		if (until == JOBQ_CRON_NEVER)
			break;
		if (shown < until + offset)
			shown = until + offset;
		at = until;
	}
	return JOBQ_CRON_NEVER;
}
