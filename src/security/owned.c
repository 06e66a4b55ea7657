/*
 * owned.c: what DROP OWNED and REASSIGN OWNED mean for queues: privileges go,
 * queues, schedules and keys get their new owner, and the audit log has a row
 * for each. The server has checked whether the caller may; jobs stay those of
 * the role that enqueued them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "errors.h"
#include "security/audit.h"
#include "security/security.h"

#define DROP_PRIVILEGES \
	"DELETE FROM jobq.queue_acl WHERE grantee::oid = ANY ($1)" \
	" RETURNING queue_id, grantee::oid, privileges"

/* A name is unique among the schedules of one owner. */
#define SAME_SCHEDULES \
	"SELECT s.name FROM jobq.schedule s" \
	" WHERE s.owner::oid = ANY ($1) OR s.owner = $2" \
	" GROUP BY s.name HAVING count(*) > 1 ORDER BY s.name"

/* What changes hands: its queue, whose it was, what it is. */
#define REASSIGN_QUEUES \
	"UPDATE jobq.queue q SET owner = $2 FROM jobq.queue o" \
	" WHERE o.queue_id = q.queue_id AND o.owner::oid = ANY ($1)" \
	" RETURNING q.queue_id, o.owner::oid, 'the queue'"

#define REASSIGN_SCHEDULES \
	"UPDATE jobq.schedule s SET owner = $2 FROM jobq.schedule o" \
	" WHERE o.schedule_id = s.schedule_id AND o.owner::oid = ANY ($1)" \
	" RETURNING s.queue_id, o.owner::oid, 'schedule \"' || s.name || '\"'"

/* All versions of a key have one owner. */
#define REASSIGN_KEYS \
	"WITH r AS (UPDATE jobq.crypto_key k SET owner = $2" \
	"  FROM jobq.crypto_key o WHERE o.name = k.name" \
	"  AND o.version = k.version AND o.owner::oid = ANY ($1)" \
	"  RETURNING k.name, o.owner::oid AS owner)" \
	" SELECT DISTINCT 0, r.owner, 'key \"' || r.name || '\"' FROM r"

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

static int32
get_int32(const SPITupleTable *rows, uint64 row, int column)
{
	bool		null;

	return DatumGetInt32(SPI_getbinval(rows->vals[row], rows->tupdesc, column,
									   &null));
}

static char *
get_role(const SPITupleTable *rows, uint64 row, int column)
{
	bool		null;

	return jobq_role_shown(DatumGetObjectId(SPI_getbinval(rows->vals[row],
														  rows->tupdesc,
														  column, &null)));
}

void
jobq_drop_owned(const List *roles)
{
	JobqOwnerContext context;
	Oid			type = OIDARRAYOID;
	Datum		value = role_array(roles);
	SPITupleTable *rows;
	uint64		n;

	jobq_queue_lock();
	jobq_connect_as_owner(&context);
	jobq_queue_changed();
	n = jobq_execute(DROP_PRIVILEGES, 1, &type, &value,
					 SPI_OK_DELETE_RETURNING);
	rows = SPI_tuptable;
	for (uint64 i = 0; i < n; i++)
		jobq_audit_act("DROP OWNED", get_int32(rows, i, 1), 0,
					   psprintf("%s from %s",
								jobq_privilege_list(get_int32(rows, i, 3)),
								get_role(rows, i, 2)));
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

/* Give away what the command says; how many there were. */
static uint64
reassign(const char *command, Oid *types, Datum *values, int expected)
{
	uint64		n = jobq_execute(command, 2, types, values, expected);
	SPITupleTable *rows = SPI_tuptable;
	Oid			owner = DatumGetObjectId(values[1]);

	for (uint64 i = 0; i < n; i++)
		jobq_audit_act("REASSIGN OWNED", get_int32(rows, i, 1), 0,
					   psprintf("%s of %s to %s",
								SPI_getvalue(rows->vals[i], rows->tupdesc, 3),
								get_role(rows, i, 2), jobq_role_shown(owner)));
	return n;
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
	/* queues first: what is written down of all looks them up */
	if (reassign(REASSIGN_QUEUES, types, values, SPI_OK_UPDATE_RETURNING) > 0)
	{
		if (!jobq_is_admin(owner))
			jobq_give_calls(owner, JOBQ_PRIV_ALL);
		foreach(cell, roles)
			jobq_take_calls_back(lfirst_oid(cell));
	}
	(void) reassign(REASSIGN_SCHEDULES, types, values,
					SPI_OK_UPDATE_RETURNING);
	(void) reassign(REASSIGN_KEYS, types, values, SPI_OK_SELECT);
	jobq_disconnect(&context);
}
