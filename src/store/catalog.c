/*
 * catalog.c: which relations are ours in this database, and the gate that
 * every entry point passes. Must not read rows of our own tables.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

#include "errors.h"
#include "store/store.h"

#define JOBQ_EXTENSION	"pg_jobq"
#define JOBQ_SCHEMA		"jobq"

/* Half a second in all: less than a deadlock takes to be noticed. */
#define GATE_TRIES		50
#define GATE_WAIT_US	10000L

static const char *const table_names[JOBQ_TABLE_COUNT] = {
	[JOBQ_TABLE_QUEUE] = "queue",
	[JOBQ_TABLE_QUEUE_ACL] = "queue_acl",
	[JOBQ_TABLE_EPOCH] = "epoch",
	[JOBQ_TABLE_SHELF] = "shelf",
	[JOBQ_TABLE_NUMBER_BLOCK] = "number_block",
	[JOBQ_TABLE_INSTALLATION] = "installation",
	[JOBQ_TABLE_CLASS] = "class",
	[JOBQ_TABLE_RESTORED] = "restored",
	[JOBQ_TABLE_UKEY] = "ukey",
	[JOBQ_TABLE_QUEUE_GROUP] = "queue_group",
	[JOBQ_TABLE_AUDIT_ENTRY] = "audit_entry",
	[JOBQ_TABLE_AUDIT_CHAIN] = "audit_chain",
	[JOBQ_TABLE_AUDIT_MARK] = "audit_mark",
	[JOBQ_TABLE_CRYPTO_KEY] = "crypto_key",
	[JOBQ_TABLE_ACCESS_KEY] = "access_key",
};

/* InvalidOid = look it up. Emptied by the callback, never anything else. */
static Oid	table_oids[JOBQ_TABLE_COUNT];

/* The same for tables of epochs, each in the place that its number gives. */
#define BELT_OIDS		64

static struct
{
	int32		epoch;
	JobqBeltKind kind;
	Oid			relid;
}			belt_oids[BELT_OIDS];

static uint64 messages;			/* how often the callback ran */
static uint64 changes = 1;		/* of the catalog of queues */

/*
 * The one relcache callback of the process. May run whenever invalidations
 * are accepted, also while we read the catalog: only notes what it is told.
 */
static void
forget_relation(Datum arg, Oid relid)
{
	bool		ours = false;

	messages++;
	for (int i = 0; i < JOBQ_TABLE_COUNT; i++)
	{
		if (table_oids[i] == InvalidOid ||
			(OidIsValid(relid) && relid != table_oids[i]))
			continue;
		if (i == JOBQ_TABLE_QUEUE || i == JOBQ_TABLE_QUEUE_ACL ||
			i == JOBQ_TABLE_CRYPTO_KEY)
			ours = true;
		table_oids[i] = InvalidOid;
	}
	for (int i = 0; i < BELT_OIDS; i++)
	{
		if (!OidIsValid(relid) || belt_oids[i].relid == relid)
			belt_oids[i].relid = InvalidOid;
	}
	if (ours || !OidIsValid(relid))
		changes++;
}

static void
watch_relations(void)
{
	static bool watching = false;

	if (watching)
		return;
	CacheRegisterRelcacheCallback(forget_relation, (Datum) 0);
	watching = true;
}

uint64
jobq_relation_changes(void)
{
	watch_relations();
	return messages;
}

/*
 * A relation of that name counts only if it belongs to the extension: the
 * keeper acts as superuser, and anyone may make a schema "jobq" where the
 * extension is not installed.
 */
static Oid
look_up(const char *name)
{
	Oid			namespace_oid = get_namespace_oid(JOBQ_SCHEMA, true);
	Oid			relid;
	Oid			extension;

	if (!OidIsValid(namespace_oid))
		return InvalidOid;
	relid = get_relname_relid(name, namespace_oid);
	if (!OidIsValid(relid))
		return InvalidOid;
	extension = get_extension_oid(JOBQ_EXTENSION, true);
	if (!OidIsValid(extension) ||
		getExtensionOfObject(RelationRelationId, relid) != extension)
		return InvalidOid;
	return relid;
}

Oid
jobq_table_oid_missing_ok(JobqTable table)
{
	Oid			relid = table_oids[table];

	if (OidIsValid(relid))
		return relid;
	watch_relations();
	for (;;)
	{
		uint64		seen = messages;

		relid = look_up(table_names[table]);
		if (seen == messages)
			break;
	}
	table_oids[table] = relid;
	return relid;
}

Oid
jobq_table_oid(JobqTable table)
{
	Oid			relid = jobq_table_oid_missing_ok(table);

	if (!OidIsValid(relid))
		ereport(ERROR,
				(errcode(ERRCODE_JOBQ_NOT_READY),
				 errmsg("pg_jobq is not installed in this database"),
				 errdetail("There is no table jobq.%s that belongs to the extension.",
						   table_names[table]),
				 errhint("Run CREATE EXTENSION pg_jobq as a superuser.")));
	return relid;
}

Oid
jobq_belt_oid(int32 epoch, JobqBeltKind kind)
{
	static const char *const prefixes[] = {
		[BELT_JOB] = "job",[BELT_CLAIM] = "claim",[BELT_OUTCOME] = "outcome",
	};
	int			place = (int) (((uint32) epoch * 4 + kind) % BELT_OIDS);
	char		name[NAMEDATALEN];
	Oid			schema;
	Oid			relid;
	uint64		seen;

	if (OidIsValid(belt_oids[place].relid) &&
		belt_oids[place].epoch == epoch && belt_oids[place].kind == kind)
		return belt_oids[place].relid;
	snprintf(name, sizeof(name), "%s_%d", prefixes[kind], epoch);
	schema = get_rel_namespace(jobq_table_oid(JOBQ_TABLE_EPOCH));
	do
	{
		seen = messages;
		relid = get_relname_relid(name, schema);
	} while (seen != messages);
	belt_oids[place].epoch = epoch;
	belt_oids[place].kind = kind;
	belt_oids[place].relid = relid;
	return relid;
}

Oid
jobq_extension_owner(void)
{
	Oid			relid = jobq_table_oid(JOBQ_TABLE_QUEUE);
	HeapTuple	tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));
	Oid			owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", relid);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	return owner;
}

/*
 * The name is resolved again under the lock: DROP EXTENSION may have come
 * first, even followed by another CREATE EXTENSION.
 */
static bool
is_still_ours(Oid relid)
{
	/* a lock that we hold already does not bring news by itself */
	AcceptInvalidationMessages();
	return jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE) == relid;
}

Oid
jobq_enter(void)
{
	for (;;)
	{
		Oid			relid = jobq_table_oid(JOBQ_TABLE_QUEUE);

		LockRelationOid(relid, AccessShareLock);
		if (is_still_ours(relid))
			return relid;
		UnlockRelationOid(relid, AccessShareLock);
	}
}

static void
lock_soon(Oid relid)
{
	for (int i = 0; i < GATE_TRIES; i++)
	{
		if (ConditionalLockRelationOid(relid, AccessShareLock))
			return;
		pg_usleep(GATE_WAIT_US);
		CHECK_FOR_INTERRUPTS();
	}
	ereport(ERROR,
			(errcode(ERRCODE_LOCK_NOT_AVAILABLE),
			 errmsg("pg_jobq is locked by another session"),
			 errdetail("Most likely the extension is being dropped or altered."),
			 errhint("Try again when that is done.")));
}

Oid
jobq_enter_by_view(void)
{
	for (;;)
	{
		Oid			relid = jobq_table_oid(JOBQ_TABLE_QUEUE);

		lock_soon(relid);
		if (is_still_ours(relid))
			return relid;
		UnlockRelationOid(relid, AccessShareLock);
	}
}

Oid
jobq_try_enter(void)
{
	Oid			relid = jobq_table_oid_missing_ok(JOBQ_TABLE_QUEUE);

	if (!OidIsValid(relid) ||
		!ConditionalLockRelationOid(relid, AccessShareLock))
		return InvalidOid;
	if (is_still_ours(relid))
		return relid;
	UnlockRelationOid(relid, AccessShareLock);
	return InvalidOid;
}

uint64
jobq_catalog_changes(void)
{
	return changes;
}

void
jobq_queue_forget(void)
{
	changes++;
}
