/*
 * cron.c: what memory knows of schedules: that they have changed, and since
 * when ticks are not late because the server was down. Decides nothing. Runs in
 * commit callbacks.
 */
#include "postgres.h"

#include "dispatch/internal.h"

void
jobq_cron_news(JobqDb *db)
{
	SpinLockAcquire(&db->mutex);
	db->cron_news = true;
	SpinLockRelease(&db->mutex);
	jobq_wake_keeper(db);
}

bool
jobq_take_cron_news(JobqDb *db)
{
	bool		news;

	SpinLockAcquire(&db->mutex);
	news = db->cron_news;
	db->cron_news = false;
	SpinLockRelease(&db->mutex);
	return news;
}

TimestampTz
jobq_cron_since(JobqDb *db, TimestampTz now)
{
	TimestampTz since;

	SpinLockAcquire(&db->mutex);
	if (db->cron_since == 0 || db->cron_since > now)
		db->cron_since = now;
	since = db->cron_since;
	SpinLockRelease(&db->mutex);
	return since;
}
