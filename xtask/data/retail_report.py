"""The sales of a retail file by day, country and stock code, computed in another language than Doorstep's, to be
compared with a report of a run:
  zcat online_retail.csv.gz | python3 retail_report.py
The first line has the totals in JSON, the others are the report's CSV."""

import csv
import io
import json
import sys
from collections import defaultdict
from decimal import Decimal


def written(amount):
    """An amount as Doorstep writes it: at least two decimals, and no zero beyond."""
    text = format(amount, "f")
    whole, _, decimals = text.partition(".")
    return whole + "." + decimals.rstrip("0").ljust(2, "0")


def new_sums():
    return {"sold": 0, "returned": 0, "written_off": 0, "sales": Decimal(0), "returns": Decimal(0),
            "write_offs": Decimal(0)}


rows = csv.DictReader(io.TextIOWrapper(sys.stdin.buffer, "utf-8", errors="surrogateescape", newline=""))
invoices = {}  # the first row of an invoice says its day and its country
cells = defaultdict(new_sums)
for row in rows:
    price = Decimal(row["UnitPrice"])
    if price < 0:
        continue  # a refused row
    invoice = row["InvoiceNo"]
    day, country = invoices.setdefault(invoice, (row["InvoiceDate"].split(" ")[0], row["Country"]))
    quantity = int(row["Quantity"])
    if invoice.startswith("C"):
        pieces, amounts = "returned", "returns"
    elif quantity < 0:
        pieces, amounts = "written_off", "write_offs"
    else:
        pieces, amounts = "sold", "sales"
    cell = cells[day, country, row["StockCode"]]
    cell[pieces] += abs(quantity)
    cell[amounts] += abs(quantity) * price

total = new_sums()
for cell in cells.values():
    for name in total:
        total[name] += cell[name]
returned = sum(1 for invoice in invoices if invoice.startswith("C"))
print(json.dumps({
    "orders": len(invoices) - returned,
    "returns": returned,
    "reversed_orders": 0,
    "pieces": {name: total[name] for name in ("sold", "returned", "written_off")} | {"reversed": 0},
    "amounts": {name: written(total[name]) for name in ("sales", "returns", "write_offs")}
    | {"reversals": "0.00", "net": written(total["sales"] - total["returns"] - total["write_offs"])},
}))
print("day,country,sku,sold,returned,written_off,reversed,sales,returns,write_offs,reversals")
for (day, country, sku), cell in sorted(cells.items()):
    print(day, country, sku, cell["sold"], cell["returned"], cell["written_off"], 0, written(cell["sales"]),
          written(cell["returns"]), written(cell["write_offs"]), "0.00", sep=",")
