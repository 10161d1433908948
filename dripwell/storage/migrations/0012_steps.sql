-- Steps of every kind.

-- The arms of branches this person was sent to, in order, as `branch-x/then`: decided once, and told when asked.
ALTER TABLE enrollment ADD COLUMN arms text[] NOT NULL DEFAULT '{}';
