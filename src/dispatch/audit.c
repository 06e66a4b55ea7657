/*
 * audit.c: refusals on their way to the audit log, in shared memory of a fixed
 * size, and the numbers of its entries. Must not allocate or raise an error,
 * nor know what an entry says.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "storage/shmem.h"

#include "dispatch/audit.h"
#include "dispatch/internal.h"

#define REFUSALS		1024	/* of all databases together */
#define REFUSALS_EACH	256		/* of one */
#define NO_REFUSAL		(-1)

/* The refusals of one database, first come first. */
typedef struct Line
{
	Oid			dbid;			/* whose they are; its entry may change hands */
	int32		first;			/* NO_REFUSAL = none */
	int32		last;
	int32		n;
	int64		lost;			/* for lack of room, not written yet */
	int64		lost_ever;
} Line;

/* All under lock. */
typedef struct Refusals
{
	LWLock	   *lock;
	int32		first_free;
	int32		next[REFUSALS];
	JobqRefusal refusals[REFUSALS];
	Line		lines[FLEXIBLE_ARRAY_MEMBER];	/* one for each database */
} Refusals;

static Refusals *shared;

/* ---- shared memory ---- */

Size
jobq_refusals_size(void)
{
	return add_size(offsetof(Refusals, lines),
					mul_size(sizeof(Line), jobq_max_databases));
}

void
jobq_refusals_init(LWLock *lock)
{
	bool		found;

	shared = ShmemInitStruct("pg_jobq refusals", jobq_refusals_size(), &found);
	if (found)
		return;
	memset(shared, 0, jobq_refusals_size());
	shared->lock = lock;
	for (int i = 0; i < REFUSALS; i++)
		shared->next[i] = i + 1 < REFUSALS ? i + 1 : NO_REFUSAL;
	for (int i = 0; i < jobq_max_databases; i++)
		shared->lines[i].first = NO_REFUSAL;
}

/* ---- refusals; under the lock, exclusive ---- */

/* The first one goes. */
static void
drop_first(Line *line)
{
	int32		i = line->first;

	line->first = shared->next[i];
	line->n--;
	shared->next[i] = shared->first_free;
	shared->first_free = i;
}

static void
begin_line(Line *line, Oid dbid)
{
	while (line->n > 0)
		drop_first(line);
	line->dbid = dbid;
	line->lost = line->lost_ever = 0;
}

/* What another database has left in its entry is nobody's. */
static Line *
own_line(JobqDb *db)
{
	Line	   *line = &shared->lines[jobq_db_index(db)];

	if (line->dbid != MyDatabaseId)
		begin_line(line, MyDatabaseId);
	return line;
}

static void
append(Line *line, const JobqRefusal *refusal)
{
	int32		i = shared->first_free;

	shared->first_free = shared->next[i];
	shared->next[i] = NO_REFUSAL;
	shared->refusals[i] = *refusal;
	if (line->n == 0)
		line->first = i;
	else
		shared->next[line->last] = i;
	line->last = i;
	line->n++;
}

/* ---- refusals, for all ---- */

void
jobq_refusal_put(JobqDb *db, const JobqRefusal *refusal)
{
	Line	   *line;
	bool		is_first;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	line = own_line(db);
	is_first = line->n == 0;
	if (line->n < REFUSALS_EACH && shared->first_free != NO_REFUSAL)
		append(line, refusal);
	else
	{
		line->lost++;
		line->lost_ever++;
	}
	LWLockRelease(shared->lock);
	if (is_first)
		jobq_wake_keeper(db);
}

int
jobq_refusal_look(JobqDb *db, int max, JobqRefusal *refusals, int64 *lost)
{
	Line	   *line;
	int			n = 0;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	line = own_line(db);
	for (int32 i = line->first; n < Min(line->n, max); i = shared->next[i])
		refusals[n++] = shared->refusals[i];
	*lost = line->lost;
	LWLockRelease(shared->lock);
	return n;
}

void
jobq_refusal_written(JobqDb *db, int n, int64 lost)
{
	Line	   *line;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	line = own_line(db);
	while (n-- > 0 && line->n > 0)
		drop_first(line);
	line->lost -= lost;
	LWLockRelease(shared->lock);
}

void
jobq_refusals_forget(JobqDb *db)
{
	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	begin_line(&shared->lines[jobq_db_index(db)], InvalidOid);
	LWLockRelease(shared->lock);
}

int
jobq_refusal_count(JobqDb *db, int64 *lost_ever)
{
	const Line *line;
	int			n;

	LWLockAcquire(shared->lock, LW_EXCLUSIVE);
	line = own_line(db);
	n = line->n;
	*lost_ever = line->lost_ever;
	LWLockRelease(shared->lock);
	return n;
}

/* ---- numbers of entries ---- */

int64
jobq_audit_take_number(JobqDb *db, uint32 gen)
{
	int64		number = -1;

	SpinLockAcquire(&db->mutex);
	if (db->gen == gen)
		number = db->audit_last < 0 ? 0 : ++db->audit_last;
	SpinLockRelease(&db->mutex);
	return number;
}

void
jobq_audit_set_number(JobqDb *db, uint32 gen, int64 last)
{
	SpinLockAcquire(&db->mutex);
	if (db->gen == gen && db->audit_last < 0)
		db->audit_last = last;
	SpinLockRelease(&db->mutex);
}

/* ---- news ---- */

/* The keeper is woken by the first news only; it takes all there are. */
void
jobq_audit_news(JobqDb *db, uint32 gen, int64 first)
{
	bool		is_first = false;

	SpinLockAcquire(&db->mutex);
	if (db->gen == gen)
	{
		is_first = db->audit_news == JOBQ_NEVER;
		db->audit_news = Min(db->audit_news, first);
	}
	SpinLockRelease(&db->mutex);
	if (is_first)
		jobq_wake_keeper(db);
}

bool
jobq_audit_has_news(JobqDb *db)
{
	bool		has;

	SpinLockAcquire(&db->mutex);
	has = db->audit_news != JOBQ_NEVER;
	SpinLockRelease(&db->mutex);
	return has;
}

int64
jobq_audit_take_news(JobqDb *db)
{
	int64		first;

	SpinLockAcquire(&db->mutex);
	first = db->audit_news;
	db->audit_news = JOBQ_NEVER;
	SpinLockRelease(&db->mutex);
	return first;
}
