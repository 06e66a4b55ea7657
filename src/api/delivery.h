/*
 * delivery.h: deliveries as rows of type jobq.delivery. Private to src/api.
 */
#ifndef JOBQ_DELIVERY_H
#define JOBQ_DELIVERY_H

#include "fmgr.h"
#include "nodes/pg_list.h"

/*
 * Materialise a list of JobqDelivery as the function's result set; what the
 * list's rows do not have (a peeked job has no lease) is NULL.
 */
extern Datum jobq_return_deliveries(FunctionCallInfo fcinfo,
									List *deliveries);

#endif							/* JOBQ_DELIVERY_H */
