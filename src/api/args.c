/*
 * args.c: checks of arguments and options that several functions share. Pure:
 * never reads tables, settings or shared memory.
 */
#include "postgres.h"

#include <math.h>

#include "catalog/pg_type.h"
#include "common/int.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/numeric.h"

#include "api/args.h"
#include "errors.h"
#include "store/store.h"

#define DAYS_PER_MONTH_COUNTED	30
#define TIME_WANTED \
	"It must be a point in time with its offset, such as \"2030-01-31T08:00:00+01:00\"."
#define INTERVAL_WANTED \
	"It must be an interval such as \"90 s\", or a number of seconds."

void
jobq_bad_argument(const char *name, const char *detail)
{
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("invalid value for \"%s\"", name),
			 errdetail_internal("%s", detail),
			 errhint("Correct \"%s\" and call again.", name)));
}

/* A span of time as people write it, in the largest unit that is exact. */
static char *
span(int64 us)
{
	static const struct
	{
		int64		us;
		const char *one;
	}			units[] = {
		{USECS_PER_DAY, "day"},
		{USECS_PER_HOUR, "hour"},
		{USECS_PER_MINUTE, "minute"},
		{USECS_PER_SEC, "second"},
		{INT64CONST(1000), "millisecond"},
		{INT64CONST(1), "microsecond"},
	};
	int			i = 0;
	int64		n;

	if (us == 0)
		return pstrdup("0 seconds");
	while (us % units[i].us != 0)
		i++;
	n = us / units[i].us;
	return psprintf(INT64_FORMAT " %s%s", n, units[i].one, n == 1 ? "" : "s");
}

static int64
within(int64 us, const char *name, int64 min_us, int64 max_us)
{
	if (us < min_us || us > max_us)
		jobq_bad_argument(name,
				  psprintf("It must be an interval between %s and %s.",
						   span(min_us), span(max_us)));
	return us;
}

const char *
jobq_shown(const char *text)
{
	size_t		length = strnlen(text, 4 * NAMEDATALEN);

	if (length < NAMEDATALEN)
		return text;
	return psprintf("%.*s...",
					pg_mbcliplen(text, (int) length, NAMEDATALEN - 1), text);
}

void
jobq_arg_required(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
				 errmsg("argument \"%s\" must not be null", name),
				 errdetail("It has no default."),
				 errhint("Pass a value for \"%s\".", name)));
}

/*
 * C0 controls and DEL are single bytes in every server encoding; C1 controls
 * exist apart from other characters in UTF-8 only.
 */
static bool
has_control_character(const char *s)
{
	bool		utf8 = GetDatabaseEncoding() == PG_UTF8;

	for (const unsigned char *p = (const unsigned char *) s; *p; p++)
	{
		if (*p < 0x20 || *p == 0x7f)
			return true;
		if (utf8 && *p == 0xc2 && p[1] >= 0x80 && p[1] < 0xa0)
			return true;
	}
	return false;
}

/* `whose` begins the sentence about what is wrong. */
static char *
get_name(text *value, const char *name, const char *whose)
{
	size_t		length = VARSIZE_ANY_EXHDR(value);
	char	   *s;

	if (length < 1 || length > JOBQ_NAME_MAX)
		jobq_bad_argument(name,
				  psprintf("%s has 1 to %d bytes; this one has %zu.", whose,
						   JOBQ_NAME_MAX, length));
	s = text_to_cstring(value);
	if (has_control_character(s))
		jobq_bad_argument(name, psprintf("%s has no control characters.",
										 whose));
	return s;
}

char *
jobq_arg_queue_name(text *value, const char *name)
{
	return get_name(value, name, "A queue's name");
}

char *
jobq_arg_name(text *value, const char *name)
{
	return get_name(value, name, "A name");
}

int64
jobq_arg_interval(const Interval *value, const char *name, int64 min_us,
				  int64 max_us)
{
	int64		days;
	int64		us;

	/* months and days are int32, so that only the last two can overflow */
	days = (int64) value->month * DAYS_PER_MONTH_COUNTED + value->day;
	if (pg_mul_s64_overflow(days, USECS_PER_DAY, &us) ||
		pg_add_s64_overflow(us, value->time, &us))
		us = days < 0 ? PG_INT64_MIN : PG_INT64_MAX;
	return within(us, name, min_us, max_us);
}

int64
jobq_arg_int(int64 value, const char *name, int64 min, int64 max)
{
	if (value < min || value > max)
		jobq_bad_argument(name,
				  psprintf("It must be between " INT64_FORMAT " and "
						   INT64_FORMAT ", not " INT64_FORMAT ".",
						   min, max, value));
	return value;
}

TimestampTz
jobq_arg_time(TimestampTz value, const char *name)
{
	if (TIMESTAMP_NOT_FINITE(value))
		jobq_bad_argument(name, "It must be a finite point in time.");
	return value;
}

int
jobq_arg_ids(FunctionCallInfo fcinfo, int argno, const char *name, int64 **ids)
{
	ArrayType  *array;
	int			n;

	*ids = NULL;
	if (PG_ARGISNULL(argno))
		return 0;
	array = PG_GETARG_ARRAYTYPE_P(argno);
	if (ARR_ELEMTYPE(array) != INT8OID)
		elog(ERROR, "argument %d is not an array of bigint", argno);
	if (ARR_NDIM(array) == 0)
		return 0;
	if (ARR_NDIM(array) != 1)
		jobq_bad_argument(name, "It must be a one-dimensional array.");
	if (array_contains_nulls(array))
		jobq_bad_argument(name, "It must not contain nulls.");
	n = ArrayGetNItems(ARR_NDIM(array), ARR_DIMS(array));
	*ids = palloc(n * sizeof(int64));
	memcpy(*ids, ARR_DATA_PTR(array), n * sizeof(int64));
	return n;
}

void
jobq_arg_object(Jsonb *value, const char *name)
{
	if (!JB_ROOT_IS_OBJECT(value))
		jobq_bad_argument(name, "It must be a JSON object.");
}

char *
jobq_arg_text(text *value, const char *name, int max_bytes)
{
	size_t		length = VARSIZE_ANY_EXHDR(value);

	if (length > (size_t) max_bytes)
		jobq_bad_argument(name,
				  psprintf("It must have at most %d bytes, not %zu.",
						   max_bytes, length));
	return text_to_cstring(value);
}

/* A type's input function, its complaints about the value turned into ours. */
static Datum
parse(PGFunction input, char *string, const char *name, const char *wanted)
{
	MemoryContext context = CurrentMemoryContext;
	volatile Datum result = (Datum) 0;

	PG_TRY();
	{
		result = DirectFunctionCall3(input, CStringGetDatum(string),
									 ObjectIdGetDatum(InvalidOid),
									 Int32GetDatum(-1));
	}
	PG_CATCH();
	{
		ErrorData  *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		if (ERRCODE_TO_CATEGORY(error->sqlerrcode) != ERRCODE_DATA_EXCEPTION)
			PG_RE_THROW();
		FlushErrorState();
		jobq_bad_argument(name, wanted);
	}
	PG_END_TRY();
	return result;
}

/* NaN for anything that is not a number. */
static double
number(const JsonbValue *value)
{
	if (value->type != jbvNumeric)
		return get_float8_nan();
	return DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											  NumericGetDatum(value->val.numeric)));
}

int64
jobq_jsonb_interval(const JsonbValue *value, const char *name, int64 min_us,
					int64 max_us)
{
	double		us;

	if (value->type == jbvString)
		return jobq_arg_interval(DatumGetIntervalP(parse(interval_in,
														 jobq_jsonb_string(value, name),
														 name,
														 INTERVAL_WANTED)),
								 name, min_us, max_us);
	if (value->type != jbvNumeric)
		jobq_bad_argument(name, INTERVAL_WANTED);
	us = rint(number(value) * USECS_PER_SEC);
	if (us < (double) min_us)
		return within(PG_INT64_MIN, name, min_us, max_us);
	if (!(us <= (double) max_us))
		return within(PG_INT64_MAX, name, min_us, max_us);
	return within((int64) us, name, min_us, max_us);
}

int64
jobq_jsonb_int(const JsonbValue *value, const char *name, int64 min, int64 max)
{
	double		d = number(value);

	if (!(d >= (double) min && d <= (double) max) || d != floor(d))
		jobq_bad_argument(name,
				  psprintf("It must be a whole number between " INT64_FORMAT
						   " and " INT64_FORMAT ".", min, max));
	return (int64) d;
}

double
jobq_jsonb_number(const JsonbValue *value, const char *name, double min,
				  double max)
{
	double		d = number(value);

	if (!(d >= min && d <= max))
		jobq_bad_argument(name,
				  psprintf("It must be a number between %g and %g.",
						   min, max));
	return d;
}

char *
jobq_jsonb_string(const JsonbValue *value, const char *name)
{
	if (value->type != jbvString)
		jobq_bad_argument(name, "It must be a string.");
	return pnstrdup(value->val.string.val, value->val.string.len);
}

/*
 * Does it end with an offset? Without one it would depend on the session's
 * time zone. What comes before the first colon is date and hour.
 */
static bool
has_offset(const char *string)
{
	const char *time = strchr(string, ':');
	size_t		length = strlen(string);

	return time != NULL &&
		(string[length - 1] == 'Z' || string[length - 1] == 'z' ||
		 strpbrk(time, "+-") != NULL);
}

TimestampTz
jobq_jsonb_time(const JsonbValue *value, const char *name)
{
	char	   *string;

	if (value->type != jbvString)
		jobq_bad_argument(name, TIME_WANTED);
	string = jobq_jsonb_string(value, name);
	if (!has_offset(string))
		jobq_bad_argument(name, TIME_WANTED);
	return jobq_arg_time(DatumGetTimestampTz(parse(timestamptz_in, string,
												   name, TIME_WANTED)),
						 name);
}
