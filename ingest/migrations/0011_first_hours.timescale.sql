-- Nothing to do: TimescaleDB makes hours of all minutes by itself (0007). The number is that of plain PostgreSQL's.
SELECT 1;
