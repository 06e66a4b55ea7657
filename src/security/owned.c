/*
 * owned.c: what DROP OWNED and REASSIGN OWNED mean for queues: privileges go,
 * queues, schedules and keys get their new owner. The server has checked whether the
 * caller may; jobs stay those of the role that enqueued them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "errors.h"
#include "security/security.h"

#define DROP_PRIVILEGES \
	"DELETE FROM jobq.queue_acl WHERE grantee::oid = ANY ($1)"

/* A name is unique among the schedules of one owner. */
#define SAME_SCHEDULES \
	"SELECT s.name FROM jobq.schedule s" \
	" WHERE s.owner::oid = ANY ($1) OR s.owner = $2" \
	" GROUP BY s.name HAVING count(*) > 1 ORDER BY s.name"

#define REASSIGN_QUEUES \
	"UPDATE jobq.queue SET owner = $2 WHERE owner::oid = ANY ($1)"

#define REASSIGN_SCHEDULES \
	"UPDATE jobq.schedule SET owner = $2 WHERE owner::oid = ANY ($1)"

#define REASSIGN_KEYS \
	"UPDATE jobq.crypto_key SET owner = $2 WHERE owner::oid = ANY ($1)"

static Datum
role_array(const List *roles)
{
	Datum	   *oids = palloc(sizeof(Datum) * list_length(roles));
	ListCell   *cell;
	int			n = 0;

	foreach(cell, roles)
		oids[n++] = ObjectIdGetDatum(lfirst_oid(cell));
	return PointerGetDatum(construct_array(oids, n, OIDOID, sizeof(Oid), true,
										   TYPALIGN_INT));
}

void
jobq_drop_owned(const List *roles)
{
	JobqOwnerContext context;
	Oid			type = OIDARRAYOID;
	Datum		value = role_array(roles);

	jobq_queue_lock();
	jobq_connect_as_owner(&context);
	jobq_queue_changed();
	(void) jobq_execute(DROP_PRIVILEGES, 1, &type, &value, SPI_OK_DELETE);
	jobq_disconnect(&context);
}

static void
refuse_same_schedules(Oid *types, Datum *values)
{
	if (jobq_execute(SAME_SCHEDULES, 2, types, values, SPI_OK_SELECT) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_DUPLICATE),
			 errmsg("more than one of the roles has a schedule \"%s\"",
					SPI_getvalue(SPI_tuptable->vals[0],
								 SPI_tuptable->tupdesc, 1)),
			 errdetail("An owner has one schedule of a name."),
			 errhint("Remove one of them with jobq.unschedule().")));
}

void
jobq_reassign_owned(const List *roles, Oid owner)
{
	JobqOwnerContext context;
	Oid			types[] = {OIDARRAYOID, OIDOID};
	Datum		values[] = {role_array(roles), ObjectIdGetDatum(owner)};
	ListCell   *cell;

	jobq_queue_lock();
	jobq_connect_as_owner(&context);
	jobq_queue_changed();
	refuse_same_schedules(types, values);
	(void) jobq_execute(REASSIGN_SCHEDULES, 2, types, values, SPI_OK_UPDATE);
	(void) jobq_execute(REASSIGN_KEYS, 2, types, values, SPI_OK_UPDATE);
	if (jobq_execute(REASSIGN_QUEUES, 2, types, values, SPI_OK_UPDATE) > 0)
	{
		if (!jobq_is_admin(owner))
			jobq_give_calls(owner, JOBQ_PRIV_ALL);
		foreach(cell, roles)
			jobq_take_calls_back(lfirst_oid(cell));
	}
	jobq_disconnect(&context);
}
