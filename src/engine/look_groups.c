/*
 * look_groups.c: the rows of view groups: live jobs counted by group, and
 * which groups are paused. A monitor is told of all groups. Must never show a
 * job.
 */
#include "postgres.h"

#include "executor/spi.h"
#include "miscadmin.h"
#include "utils/builtins.h"

#include "engine/look.h"

#define PAUSES \
	"SELECT g.queue_id, g.group_key, g.paused_until, g.paused_by, g.paused_at" \
	" FROM jobq.queue_group g WHERE g.paused_until > $1"

/* Columns of view groups. */
typedef enum GroupAttr
{
	GROUPS_QUEUE,
	GROUPS_GROUP_KEY,
	GROUPS_AVAILABLE,
	GROUPS_BLOCKED,
	GROUPS_RUNNING,
	GROUPS_OLDEST_SECONDS,
	GROUPS_PAUSED_UNTIL,
	GROUPS_PAUSED_BY,
	GROUPS_PAUSED_AT,
	GROUPS_NATTS
} GroupAttr;

typedef struct GroupKey
{
	int32		queue_id;
	char		key[JOBQ_KEY_MAX + 1];
} GroupKey;

typedef struct GroupCount
{
	GroupKey	key;			/* hash key */
	int64		available;
	int64		blocked;
	int64		running;
	TimestampTz oldest;			/* JOBQ_NEVER = none could run */
	TimestampTz paused_until;	/* 0 = it is not paused */
	JobqStop	pause;
} GroupCount;

static void
fill_key(int32 queue_id, Datum group_key, GroupKey *key)
{
	memset(key, 0, sizeof(*key));
	key->queue_id = queue_id;
	text_to_cstring_buffer(DatumGetTextPP(group_key), key->key,
						   sizeof(key->key));
}

void
jobq_look_count(JobqLook *look, int32 queue_id, Datum group_key,
				const char *state, TimestampTz run_at)
{
	GroupKey	key;
	GroupCount *group;
	bool		found;

	fill_key(queue_id, group_key, &key);
	group = hash_search(look->groups, &key, HASH_ENTER, &found);
	if (!found)
	{
		memset((char *) group + sizeof(GroupKey), 0,
			   sizeof(GroupCount) - sizeof(GroupKey));
		group->oldest = JOBQ_NEVER;
	}
	if (strcmp(state, "running") == 0)
		group->running++;
	else if (strcmp(state, "blocked") == 0)
		group->blocked++;
	else if (strcmp(state, "available") == 0)
		group->available++;
	else
		return;
	if (strcmp(state, "running") != 0)
		group->oldest = Min(group->oldest, run_at);
}

static void
add_pauses(JobqLook *look, TimestampTz now)
{
	Oid			type = TIMESTAMPTZOID;
	Datum		value = TimestampTzGetDatum(now);

	if (SPI_execute_with_args(PAUSES, 1, &type, &value, NULL, true,
							  0) != SPI_OK_SELECT)
		elog(ERROR, "could not read the groups");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		Datum		values[5];
		bool		nulls[5];
		GroupKey	key;
		GroupCount *group;

		CHECK_FOR_INTERRUPTS();
		heap_deform_tuple(SPI_tuptable->vals[i], SPI_tuptable->tupdesc,
						  values, nulls);
		fill_key(DatumGetInt32(values[0]), values[1], &key);
		group = hash_search(look->groups, &key, HASH_FIND, NULL);
		if (group == NULL)
			continue;
		group->paused_until = DatumGetTimestampTz(values[2]);
		group->pause.by = nulls[3] ? InvalidOid : DatumGetObjectId(values[3]);
		group->pause.at = nulls[4] ? 0 : DatumGetTimestampTz(values[4]);
	}
}

static void
show(const JobqLook *look, const GroupCount *group, TimestampTz now)
{
	const JobqLookQueue *queue = hash_search(look->queues,
											 &group->key.queue_id, HASH_FIND,
											 NULL);
	Datum		values[GROUPS_NATTS];
	bool		nulls[GROUPS_NATTS] = {0};

	values[GROUPS_QUEUE] = queue->name;
	values[GROUPS_GROUP_KEY] = CStringGetTextDatum(group->key.key);
	values[GROUPS_AVAILABLE] = Int64GetDatum(group->available);
	values[GROUPS_BLOCKED] = Int64GetDatum(group->blocked);
	values[GROUPS_RUNNING] = Int64GetDatum(group->running);
	values[GROUPS_OLDEST_SECONDS] =
		Float8GetDatum((double) (now - group->oldest) / USECS_PER_SEC);
	nulls[GROUPS_OLDEST_SECONDS] = group->oldest == JOBQ_NEVER;
	values[GROUPS_PAUSED_UNTIL] = TimestampTzGetDatum(group->paused_until);
	values[GROUPS_PAUSED_BY] =
		CStringGetTextDatum(jobq_role_shown(group->pause.by));
	values[GROUPS_PAUSED_AT] = TimestampTzGetDatum(group->pause.at);
	nulls[GROUPS_PAUSED_UNTIL] = nulls[GROUPS_PAUSED_BY] =
		group->paused_until == 0;
	nulls[GROUPS_PAUSED_AT] = group->pause.at == 0;
	tuplestore_putvalues(look->store, look->desc, values, nulls);
}

void
jobq_show_groups(const JobqSession *session, Tuplestorestate *store,
				 TupleDesc desc)
{
	JobqLook	look;
	HASHCTL		ctl = {.keysize = sizeof(GroupKey),.entrysize = sizeof(GroupCount)};
	HASH_SEQ_STATUS seq;
	GroupCount *group;
	TimestampTz now;

	jobq_look_await_leases(session);
	jobq_look_begin(&look, session, 0, store, desc);
	look.all = jobq_is_monitor(look.caller);
	ctl.hcxt = look.context;
	look.groups = hash_create("jobq look groups", 64, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	jobq_look_live(&look);
	now = jobq_now();
	add_pauses(&look, now);
	hash_seq_init(&seq, look.groups);
	while ((group = hash_seq_search(&seq)) != NULL)
		show(&look, group, now);
	jobq_look_end(&look);
}
