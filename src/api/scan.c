/*
 * scan.c: the plan node of SELECT … FROM jobq.dequeue(…) and the like: what a
 * function scan does, without a tuplestore and without columns that nobody
 * reads. Takes what it is sure to do the same way; must not change a result.
 *
 * A function scan sets up a row with all columns of jobq.delivery, three
 * times, and copies each row twice: of a complete_and_dequeue of one job that
 * is a tenth.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "optimizer/tlist.h"
#include "parser/parsetree.h"
#include "pgstat.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/ruleutils.h"

#include "api/delivery.h"
#include "api/dequeue.h"
#include "api/scan.h"
#include "compat.h"

typedef struct DeliveryScan
{
	CustomScanState css;
	FuncExpr   *call;
	ExprState **arguments;		/* NULL: a constant */
	FmgrInfo	function;
	JobqRows	rows;			/* nrows < 0: not called yet */
	int			at;				/* row, from 1; 0: before the first */
} DeliveryScan;

static set_rel_pathlist_hook_type previous_hook;

/* ---- execution ---- */

static void
begin_scan(CustomScanState *node, EState *estate, int eflags)
{
	DeliveryScan *scan = (DeliveryScan *) node;
	CustomScan *plan = castNode(CustomScan, node->ss.ps.plan);
	FuncExpr   *call = linitial_node(FuncExpr, plan->custom_exprs);
	int		   *columns;
	ListCell   *cell;
	int			n = 0;

	if (!jobq_may_execute(call->funcid, GetUserId()))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_FUNCTION,
					   get_func_name(call->funcid));
	InvokeFunctionExecuteHook(call->funcid);
	fmgr_info(call->funcid, &scan->function);
	fmgr_info_set_expr((Node *) call, &scan->function);
	scan->call = call;
	scan->arguments = palloc0(sizeof(ExprState *) * list_length(call->args));
	foreach(cell, call->args)
	{
		if (!IsA(lfirst(cell), Const))
			scan->arguments[n] = ExecInitExpr(lfirst(cell), &node->ss.ps);
		n++;
	}

	columns = palloc(sizeof(int) * (list_length(plan->custom_scan_tlist) + 1));
	n = 0;
	foreach(cell, plan->custom_scan_tlist)
		columns[n++] =
			castNode(Var, lfirst_node(TargetEntry, cell)->expr)->varattno - 1;
	scan->rows.node.type = T_ExtensibleNode;
	scan->rows.node.extnodename = jobq_rows_name;
	scan->rows.columns = columns;
	scan->rows.ncolumns = n;
	scan->rows.context = estate->es_query_cxt;
	scan->rows.nrows = -1;
}

static void
call_function(DeliveryScan *scan)
{
	ExprContext *econtext = scan->css.ss.ps.ps_ExprContext;
	LOCAL_FCINFO(fcinfo, FUNC_MAX_ARGS);
	PgStat_FunctionCallUsage usage;
	ListCell   *cell;
	int			n = 0;

	InitFunctionCallInfoData(*fcinfo, &scan->function,
							 list_length(scan->call->args),
							 scan->call->inputcollid, NULL,
							 (Node *) &scan->rows);
	foreach(cell, scan->call->args)
	{
		NullableDatum *argument = &fcinfo->args[n];

		if (scan->arguments[n] != NULL)
			argument->value = ExecEvalExpr(scan->arguments[n], econtext,
										   &argument->isnull);
		else
		{
			argument->value = lfirst_node(Const, cell)->constvalue;
			argument->isnull = lfirst_node(Const, cell)->constisnull;
		}
		n++;
	}
	pgstat_init_function_usage(fcinfo, &usage);
	(void) FunctionCallInvoke(fcinfo);
	pgstat_end_function_usage(&usage, true);
	if (scan->rows.nrows < 0)
		elog(ERROR, "function %u has changed since it was planned",
			 scan->call->funcid);
}

static TupleTableSlot *
fetch(DeliveryScan *scan)
{
	TupleTableSlot *slot = scan->css.ss.ss_ScanTupleSlot;
	const JobqRows *rows = &scan->rows;
	Size		first;

	ExecClearTuple(slot);
	if (ScanDirectionIsForward(scan->css.ss.ps.state->es_direction))
		scan->at = Min(scan->at + 1, rows->nrows + 1);
	else
		scan->at = Max(scan->at - 1, 0);
	if (scan->at == 0 || scan->at > rows->nrows)
		return slot;
	if (rows->ncolumns > 0)
	{
		first = (Size) (scan->at - 1) * rows->ncolumns;
		memcpy(slot->tts_values, rows->values + first,
			   sizeof(Datum) * rows->ncolumns);
		memcpy(slot->tts_isnull, rows->nulls + first,
			   sizeof(bool) * rows->ncolumns);
	}
	return ExecStoreVirtualTuple(slot);
}

/* The first row that is asked for makes the call: all rows come of it. */
static TupleTableSlot *
exec_scan(CustomScanState *node)
{
	DeliveryScan *scan = (DeliveryScan *) node;
	ExprContext *econtext = node->ss.ps.ps_ExprContext;
	ProjectionInfo *projection = node->ss.ps.ps_ProjInfo;
	TupleTableSlot *slot;

	if (scan->rows.nrows < 0)
	{
		MemoryContext old;

		old = MemoryContextSwitchTo(econtext->ecxt_per_tuple_memory);
		call_function(scan);
		MemoryContextSwitchTo(old);
		ResetExprContext(econtext);
	}
	slot = fetch(scan);
	if (projection == NULL)
		return slot;
	if (TupIsNull(slot))
		return ExecClearTuple(projection->pi_state.resultslot);
	ResetExprContext(econtext);
	econtext->ecxt_scantuple = slot;
	return ExecProject(projection);
}

/* Nothing that the call depends on can have changed. */
static void
rescan(CustomScanState *node)
{
	((DeliveryScan *) node)->at = 0;
}

static void
end_scan(CustomScanState *node)
{
	/* all is in the query's memory */
}

static void
explain_scan(CustomScanState *node, List *ancestors, ExplainState *es)
{
	FuncExpr   *call = ((DeliveryScan *) node)->call;
	char	   *name = get_func_name(call->funcid);

	/* it may have been dropped by the time when auto_explain comes */
	if (name == NULL)
		return;
	ExplainPropertyText("Function Name", name, es);
	if (es->verbose)
		ExplainPropertyText("Function Call",
							deparse_expression((Node *) call,
											   set_deparse_context_plan(es->deparse_cxt,
																		node->ss.ps.plan,
																		ancestors),
											   true, false),
							es);
}

static const CustomExecMethods exec_methods = {
	.CustomName = "JobqScan",
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain_scan,
};

static Node *
create_state(CustomScan *plan)
{
	DeliveryScan *scan = palloc0(sizeof(DeliveryScan));

	NodeSetTag(scan, T_CustomScanState);
	scan->css.methods = &exec_methods;
	return (Node *) scan;
}

static const CustomScanMethods scan_methods = {
	.CustomName = "JobqScan",
	.CreateCustomScanState = create_state,
};

/* ---- planning ---- */

/* The columns that the query reads. */
static List *
columns_of(const RelOptInfo *rel)
{
	return pull_var_clause((Node *) rel->reltarget->exprs,
						   PVC_RECURSE_AGGREGATES | PVC_RECURSE_WINDOWFUNCS |
						   PVC_RECURSE_PLACEHOLDERS);
}

/* The target list may be another in the end, of the same columns. */
static Plan *
plan_path(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
		  List *clauses, List *custom_plans)
{
	CustomScan *plan = makeNode(CustomScan);
	RangeTblEntry *rte = planner_rt_fetch(rel->relid, root);

	Assert(clauses == NIL);
	plan->methods = &scan_methods;
	plan->flags = path->flags;
	plan->scan.plan.targetlist = tlist;
	plan->custom_exprs =
		list_make1(linitial_node(RangeTblFunction, rte->functions)->funcexpr);
	plan->custom_scan_tlist = add_to_flat_tlist(NIL, path->custom_private);
	return &plan->scan.plan;
}

static const CustomPathMethods path_methods = {
	.CustomName = "JobqScan",
	.PlanCustomPath = plan_path,
};

/*
 * Arguments that a rescan would evaluate anew. Without them the function is
 * called once, however often its rows are read.
 */
static bool
may_change(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (IsA(node, Param))
		return castNode(Param, node)->paramkind != PARAM_EXTERN;
	if (IsA(node, Var) || IsA(node, PlaceHolderVar) || IsA(node, SubPlan) ||
		IsA(node, AlternativeSubPlan))
		return true;
	return expression_tree_walker(node, may_change, context);
}

/*
 * One of ours as we made it: not wrapped by settings or another's rights, not
 * to be left out for a null.
 */
static bool
returns_deliveries(const FuncExpr *call)
{
	FmgrInfo	function;

	if (get_func_namespace(call->funcid) != get_namespace_oid("jobq", true))
		return false;
	fmgr_info(call->funcid, &function);
	return (function.fn_addr == jobq_sql_dequeue ||
			function.fn_addr == jobq_sql_dequeue_any ||
			function.fn_addr == jobq_sql_complete_and_dequeue) &&
		function.fn_retset && !function.fn_strict;
}

/* All columns that are read are those that we know; no row as a whole. */
static bool
knows_columns(List *columns)
{
	ListCell   *cell;

	foreach(cell, columns)
	{
		const Var  *var = lfirst_node(Var, cell);

		if (var->vartype != jobq_delivery_type(var->varattno - 1))
			return false;
	}
	return true;
}

/*
 * The only relation of a query, without a condition: EvalPlanQual never asks
 * for one of its rows again.
 */
static bool
is_plain(PlannerInfo *root, const RelOptInfo *rel, const RangeTblEntry *rte)
{
	RangeTblFunction *function;

	if (rte->rtekind != RTE_FUNCTION || rel->reloptkind != RELOPT_BASEREL ||
		(root->parse->commandType != CMD_SELECT &&
		 root->parse->commandType != CMD_INSERT) ||
		!bms_equal(root->all_baserels, rel->relids) ||
		rel->baserestrictinfo != NIL || rel->joininfo != NIL ||
		rel->lateral_relids != NULL ||
		rte->funcordinality || list_length(rte->functions) != 1)
		return false;
	function = linitial_node(RangeTblFunction, rte->functions);
	return IsA(function->funcexpr, FuncExpr) &&
		function->funccolnames == NIL &&
		castNode(FuncExpr, function->funcexpr)->funcretset &&
		returns_deliveries(castNode(FuncExpr, function->funcexpr)) &&
		!may_change(function->funcexpr, NULL);
}

/* Like the path that is there, of which there is one for a function. */
static void
set_paths(PlannerInfo *root, RelOptInfo *rel, Index rti, RangeTblEntry *rte)
{
	const Path *old;
	CustomPath *path;
	List	   *columns;

	if (previous_hook)
		previous_hook(root, rel, rti, rte);
	if (list_length(rel->pathlist) != 1 || !is_plain(root, rel, rte))
		return;
	old = linitial(rel->pathlist);
	columns = columns_of(rel);
	if (old->pathtype != T_FunctionScan || !knows_columns(columns))
		return;
	path = makeNode(CustomPath);
	path->path = *old;
	path->path.type = T_CustomPath;
	path->path.pathtype = T_CustomScan;
	path->flags = CUSTOMPATH_SUPPORT_BACKWARD_SCAN |
		CUSTOMPATH_SUPPORT_PROJECTION;
	path->custom_private = columns;
	path->methods = &path_methods;
	rel->pathlist = list_make1(path);
}

void
jobq_install_scan(void)
{
	RegisterCustomScanMethods(&scan_methods);
	previous_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = set_paths;
}
