/*
 * delivery.h: what calls give back: deliveries as rows of type jobq.delivery
 * or as JSON, and the argument of a procedure. Private to src/api.
 */
#ifndef JOBQ_DELIVERY_H
#define JOBQ_DELIVERY_H

#include "fmgr.h"
#include "nodes/extensible.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"
#include "utils/palloc.h"

/*
 * What a scan of our own puts into fcinfo->resultinfo in the place of a
 * ReturnSetInfo: the columns that it wants, from 0, and where what it gets is
 * to live. A row has ncolumns values.
 */
typedef struct JobqRows
{
	ExtensibleNode node;		/* extnodename is jobq_rows_name itself */
	const int  *columns;
	int			ncolumns;
	MemoryContext context;
	int			nrows;
	Datum	   *values;
	bool	   *nulls;
} JobqRows;

extern const char *const jobq_rows_name;

/* The type of a column of jobq.delivery, from 0; InvalidOid: none such. */
extern Oid	jobq_delivery_type(int column);

/*
 * Materialise a list of JobqDelivery as the function's result set; what the
 * list's rows do not have (a peeked job has no lease) is NULL.
 */
extern Datum jobq_return_deliveries(FunctionCallInfo fcinfo,
									List *deliveries);

/* An array of objects with the same names. */
extern Jsonb *jobq_deliveries_to_jsonb(List *deliveries);

/* An object of a job's state, result and error. */
extern Jsonb *jobq_outcome_to_jsonb(const Datum *values, const bool *nulls);

/* The value of a procedure's only INOUT argument. */
extern Datum jobq_return_inout(FunctionCallInfo fcinfo, Datum value,
							   bool isnull);

#endif							/* JOBQ_DELIVERY_H */
