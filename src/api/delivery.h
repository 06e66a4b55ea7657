/*
 * delivery.h: what calls give back: deliveries as rows of type jobq.delivery
 * or as JSON, and the argument of a procedure. Private to src/api.
 */
#ifndef JOBQ_DELIVERY_H
#define JOBQ_DELIVERY_H

#include "fmgr.h"
#include "nodes/pg_list.h"
#include "utils/jsonb.h"

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
