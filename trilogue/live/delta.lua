-- Publishes streamed text of a running turn and buffers it for those who join in its middle.
--
-- KEYS  1 turns: turn/agent -> '<characters>:<text as the inside of a JSON string>'
-- ARGV  1 TTL in ms, 2 and 3 the channels, 4 message, 5 turn, 6 offset, 7 characters, 8 text

local offset, length, text = tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8]

if offset > 0 then
  local former = redis.call('HGET', KEYS[1], ARGV[5]) or '0:'
  local known, start = string.match(former, '^(%d+):(.*)$')
  if tonumber(known) == offset then
    length, text = offset + length, start .. text
  else
    text = nil -- the beginning was lost: no buffer is better than one with a hole
  end
end

if text then
  redis.call('HSET', KEYS[1], ARGV[5], string.format('%d:', length) .. text)
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
else
  redis.call('HDEL', KEYS[1], ARGV[5])
end
redis.call('PUBLISH', ARGV[2], ARGV[4])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
