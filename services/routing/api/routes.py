"""Every route of routing."""

from services.routing.api import backtest, cases, duties, impact, joins, sandbox, staff, worklist

ROUTE_HANDLERS = [
    *cases.ROUTE_HANDLERS,
    *worklist.ROUTE_HANDLERS,
    *joins.ROUTE_HANDLERS,
    *duties.ROUTE_HANDLERS,
    *impact.ROUTE_HANDLERS,
    *backtest.ROUTE_HANDLERS,
    *staff.ROUTE_HANDLERS,
    *sandbox.ROUTE_HANDLERS,
]
