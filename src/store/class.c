/*
 * class.c: retention classes: queues that keep their finished jobs equally
 * long share epochs. Does not know which queue is of which class.
 */
#include "postgres.h"

#include "access/table.h"
#include "access/tableam.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

#include "errors.h"
#include "security/security.h"
#include "store/rows.h"

#define INSERT_CLASS \
	"INSERT INTO jobq.class (class, retention) VALUES ($1, $2)"
#define DELETE_CLASS \
	"DELETE FROM jobq.class WHERE class = $1"

/* Columns of jobq.class. */
typedef enum ClassAttr
{
	CLASS_CLASS,
	CLASS_RETENTION
} ClassAttr;

int
jobq_class_read(JobqClass **classes)
{
	Relation	rel = table_open(jobq_table_oid(JOBQ_TABLE_CLASS),
								 AccessShareLock);
	Snapshot	snapshot = jobq_fresh_snapshot();
	TableScanDesc scan = table_beginscan(rel, snapshot, 0, NULL);
	TupleTableSlot *slot = table_slot_create(rel, NULL);
	int			n = 0;

	*classes = palloc(JOBQ_CLASS_MAX * sizeof(JobqClass));
	while (n < JOBQ_CLASS_MAX &&
		   table_scan_getnextslot(scan, ForwardScanDirection, slot))
	{
		slot_getallattrs(slot);
		(*classes)[n].class_id = DatumGetInt32(slot->tts_values[CLASS_CLASS]);
		(*classes)[n].retention =
			DatumGetInt64(slot->tts_values[CLASS_RETENTION]);
		n++;
	}
	ExecDropSingleTupleTableSlot(slot);
	table_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, NoLock);
	return n;
}

static void
change_class(const char *command, int32 class_id, int64 retention, int nargs,
			 int expected)
{
	Oid			types[] = {INT4OID, INT8OID};
	Datum		values[] = {Int32GetDatum(class_id), Int64GetDatum(retention)};
	JobqOwnerContext context;

	jobq_connect_as_owner(&context);
	(void) jobq_execute(command, nargs, types, values, expected);
	jobq_disconnect(&context);
}

static int32
free_number(const JobqClass *classes, int n)
{
	for (int32 number = JOBQ_CLASS_DEFAULT; number <= JOBQ_CLASS_MAX; number++)
	{
		bool		taken = false;

		for (int i = 0; i < n; i++)
			taken = taken || classes[i].class_id == number;
		if (!taken)
			return number;
	}
	ereport(ERROR,
			(errcode(ERRCODE_JOBQ_BAD_ARGUMENT),
			 errmsg("too many different values of \"retention\""),
			 errdetail("The queues of this database have %d different ones already, and there can be no more.",
					   n),
			 errhint("Give the queue a retention that another queue has; one that is not in use any more is free again once its jobs are gone.")));
}

int32
jobq_class_get(int64 retention)
{
	JobqClass  *classes;
	int			n = jobq_class_read(&classes);
	int32		class_id;

	for (int i = 0; i < n; i++)
	{
		if (classes[i].retention == retention)
			return classes[i].class_id;
	}
	class_id = free_number(classes, n);
	change_class(INSERT_CLASS, class_id, retention, 2, SPI_OK_INSERT);
	(void) jobq_epoch_lock_numbers(false);
	(void) jobq_epoch_create(class_id);
	return class_id;
}

void
jobq_class_forget(int32 class_id)
{
	change_class(DELETE_CLASS, class_id, 0, 1, SPI_OK_DELETE);
}
