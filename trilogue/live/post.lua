-- Posts consecutive entries of one pipeline: stream, board and notices at once, or nothing.
--
-- KEYS  1-6 the hashes of the board (1 is state), 7 turns, 8 entries
-- ARGV  1 TTL in ms, 2 about how many entries the stream keeps, 3 and 4 the channels,
--       5 seq of the first entry, 6 how many; then so many messages;
--       then groups of: number of a hash, how many arguments, the arguments
--       (field and value in turn for the board, fields to delete for turns)
-- Returns {1, the last seq posted}, or {0, the seq that must come next} when there is a gap.

local unpack = table.unpack or unpack -- Dragonfly runs Lua 5.4, Redis and Valkey 5.1

local first, count = tonumber(ARGV[5]), tonumber(ARGV[6])
local posted = tonumber(redis.call('HGET', KEYS[1], 'seq') or '0')

if first > posted + 1 then
  return { 0, posted + 1 }
end
if first + count - 1 <= posted then
  return { 1, posted }
end
if posted == 0 then
  -- The state is new or was lost by itself: what is left of the others would get in the way.
  redis.call('DEL', unpack(KEYS))
end

for i = posted - first + 2, count do
  local message = ARGV[6 + i]
  local id = string.format('%d-0', first + i - 1)
  redis.call('XADD', KEYS[8], 'MAXLEN', '~', ARGV[2], id, 'entry', message)
  redis.call('PUBLISH', ARGV[3], message)
  redis.call('PUBLISH', ARGV[4], message)
end

local at = 7 + count
while at <= #ARGV do
  local hash, width = tonumber(ARGV[at]), tonumber(ARGV[at + 1])
  local command = hash == 7 and 'HDEL' or 'HSET'
  redis.call(command, KEYS[hash], unpack(ARGV, at + 2, at + 1 + width))
  at = at + 2 + width
end

for number, key in ipairs(KEYS) do
  if number ~= 7 then -- turns has its own, shorter time, from delta.lua
    redis.call('PEXPIRE', key, ARGV[1])
  end
end
return { 1, first + count - 1 }
