/*
 * unique.c: the words of unique keys: what callers may ask for and what they
 * are told. Must not know what becomes of a key.
 */
#include "postgres.h"

#include "api/args.h"
#include "api/unique.h"

static const char *const on_conflict_words[] = {
	[JOBQ_ON_CONFLICT_IGNORE] = "ignore",
	[JOBQ_ON_CONFLICT_ERROR] = "error",
	[JOBQ_ON_CONFLICT_REPLACE] = "replace",
	[JOBQ_ON_CONFLICT_DEBOUNCE] = "debounce",
};

static const char *const while_words[] = {
	[JOBQ_UNIQUE_LIVE] = "live",
	[JOBQ_UNIQUE_WAITING] = "waiting",
};

static const char *const enqueued_words[] = {
	[JOBQ_INSERTED] = "inserted",
	[JOBQ_EXISTING] = "existing",
	[JOBQ_REPLACED] = "replaced",
	[JOBQ_DEBOUNCED] = "debounced",
};

void
jobq_unique_defaults(JobqUnique *unique)
{
	*unique = (JobqUnique) {.on_conflict = JOBQ_ON_CONFLICT_IGNORE,
		.unique_while = JOBQ_UNIQUE_LIVE,.debounce_max = JOBQ_NEVER};
}

/* Its place among the words, -1 = none. */
static int
find_word(const char *const *words, int n, const char *word)
{
	for (int i = 0; i < n; i++)
	{
		if (strcmp(words[i], word) == 0)
			return i;
	}
	return -1;
}

JobqOnConflict
jobq_unique_on_conflict(const char *word)
{
	int			found = find_word(on_conflict_words,
								  lengthof(on_conflict_words), word);

	if (found < 0)
		jobq_bad_argument("on_conflict", "It must be ignore, error, replace or debounce.");
	return (JobqOnConflict) found;
}

JobqUniqueWhile
jobq_unique_while(const char *word)
{
	int			found = find_word(while_words, lengthof(while_words), word);

	if (found < 0)
		jobq_bad_argument("unique_while", "It must be live or waiting.");
	return (JobqUniqueWhile) found;
}

void
jobq_unique_check(const JobqUnique *unique)
{
	if (unique->debounce_max != JOBQ_NEVER &&
		unique->on_conflict != JOBQ_ON_CONFLICT_DEBOUNCE)
		jobq_bad_argument("debounce_max", "It goes with on_conflict \"debounce\" only.");
}

const char *
jobq_enqueued_word(JobqEnqueued outcome)
{
	return enqueued_words[outcome];
}
