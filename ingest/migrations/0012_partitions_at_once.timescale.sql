-- Nothing to do: TimescaleDB makes chunks by itself (0003). The number is that of plain PostgreSQL's.
SELECT 1;
