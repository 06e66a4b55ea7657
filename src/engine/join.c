/*
 * join.c: entries of a transaction's log that say the same of the same thing
 * are made one, so that a transaction with very many jobs needs no memory for
 * each. Must not change what the log says; what subtransaction callbacks call
 * must not allocate or throw.
 */
#include "postgres.h"

#include "access/xact.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "engine/xactlog.h"

/*
 * One looks at so many last entries; at more of them only in a short log, for
 * a longer one has an index.
 */
#define NEAR			4
#define NO_INDEX_MAX	64

/* What two entries must have in common, without padding that is not zero. */
typedef struct JoinKey
{
	int32		kind;
	int32		queue_id;
	uint32		gen;
	int32		counter;
	uint32		by_kind;
	uint32		by_worker;
	uint64		admit_key[2];
	int64		period;
} JoinKey;

typedef struct Alike
{
	JoinKey		key;
	int			last;			/* the last such entry, -1 = none */
} Alike;

static HTAB *alike_index;		/* NULL while the log is short */

static bool
can_be_joined(JobqOpKind kind)
{
	return kind == OP_SPILL || kind == OP_COUNT || kind == OP_ADMITTED ||
		kind == OP_SHELVED || kind == OP_DIED || kind == OP_AUDITED;
}

static void
key_of(const JobqOp *op, JoinKey *key)
{
	memset(key, 0, sizeof(*key));
	key->kind = op->kind;
	key->queue_id = op->queue_id;
	key->gen = op->ref.gen;
	key->counter = op->counter;
	key->by_kind = op->by_kind.serial;
	key->by_worker = op->by_worker.serial;
	key->admit_key[0] = op->admit_key[0];
	key->admit_key[1] = op->admit_key[1];
	key->period = op->period;
}

/* ---- the index ---- */

static int
enter(int number)
{
	JoinKey		key;
	Alike	   *alike;
	bool		found;
	int			before;

	key_of(&jobq_ops[number], &key);
	alike = hash_search(alike_index, &key, HASH_ENTER, &found);
	before = found ? alike->last : -1;
	alike->last = number;
	return before;
}

static void
build_index(void)
{
	HASHCTL		ctl = {0};

	ctl.keysize = sizeof(JoinKey);
	ctl.entrysize = sizeof(Alike);
	ctl.hcxt = TopTransactionContext;
	alike_index = hash_create("pg_jobq joined entries", NO_INDEX_MAX, &ctl,
							  HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	for (int i = 0; i < jobq_nops; i++)
	{
		if (can_be_joined(jobq_ops[i].kind))
			jobq_ops[i].before = enter(i);
	}
}

/* Of an entry that is in the index. */
static void
set_last(const JobqOp *op, int last)
{
	JoinKey		key;
	Alike	   *alike;

	key_of(op, &key);
	alike = hash_search(alike_index, &key, HASH_FIND, NULL);
	if (alike != NULL)
		alike->last = last;
}

/* The last one that is alike among so many before it, or -1. */
static int
look_back(int number, int how_many)
{
	JoinKey		key;
	JoinKey		other;

	key_of(&jobq_ops[number], &key);
	for (int i = number - 1; i >= Max(number - how_many, 0); i--)
	{
		if (jobq_ops[i].kind != jobq_ops[number].kind)
			continue;
		key_of(&jobq_ops[i], &other);
		if (memcmp(&key, &other, sizeof(key)) == 0)
			return i;
	}
	return -1;
}

/* ---- joining ---- */

static bool
belong_together(const JobqOp *op, const JobqOp *last)
{
	return op->subid == last->subid &&
		((op->kind != OP_COUNT && op->kind != OP_ADMITTED) ||
		 op->when == last->when);
}

static void
add(JobqOp *op, const JobqOp *last)
{
	switch (op->kind)
	{
		case OP_SPILL:
			/* before the queue's order changed: anywhere in the new one */
			if (op->aging != last->aging)
				op->first.priority = JOBQ_KEY_START;
			else if (jobq_key_before(&last->first, &op->first))
				op->first = last->first;
			op->delta += last->delta;
			break;
		case OP_COUNT:
		case OP_ADMITTED:
			op->delta += last->delta;
			break;
		case OP_AUDITED:		/* the keeper begins with the first one */
			op->ref.id = Min(op->ref.id, last->ref.id);
			break;
		default:				/* the earliest of times is enough */
			op->when = Min(op->when, last->when);
	}
}

static bool
join_last(int before)
{
	JobqOp	   *last = &jobq_ops[jobq_nops - 1];

	if (before < 0 || !belong_together(&jobq_ops[before], last))
		return false;
	add(&jobq_ops[before], last);
	jobq_ops_of_kind[last->kind]--;
	jobq_nops--;
	return true;
}

void
jobq_xact_join(void)
{
	int			last = jobq_nops - 1;
	bool		is_short = alike_index == NULL && last < NO_INDEX_MAX;

	if (join_last(look_back(last, is_short ? NO_INDEX_MAX : NEAR)) || is_short)
		return;
	if (alike_index == NULL)
		build_index();
	else
		jobq_ops[last].before = enter(last);
	if (join_last(jobq_ops[last].before))
		set_last(&jobq_ops[last], jobq_ops[last].before);
}

void
jobq_xact_join_up(SubTransactionId subid)
{
	while (jobq_nops > 0 && jobq_ops[jobq_nops - 1].subid == subid &&
		   can_be_joined(jobq_ops[jobq_nops - 1].kind))
	{
		int			last = jobq_nops - 1;
		int			before = alike_index != NULL ? jobq_ops[last].before :
			look_back(last, NO_INDEX_MAX);

		if (!join_last(before))
			return;
		if (alike_index != NULL)
			set_last(&jobq_ops[last], before);
	}
}

void
jobq_xact_unjoin(const JobqOp *op)
{
	if (alike_index != NULL && can_be_joined(op->kind))
		set_last(op, op->before);
}

void
jobq_join_forget(void)
{
	alike_index = NULL;
}
