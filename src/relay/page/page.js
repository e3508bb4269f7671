// Stream types (ISO/IEC 13818-1, table 2-34, and those in use beside it).
const CODECS = {1: 'MPEG-1 video', 2: 'MPEG-2 video', 3: 'MPEG-1 audio', 4: 'MPEG-2 audio', 6: 'private data',
  15: 'AAC', 16: 'MPEG-4 video', 17: 'AAC (LATM)', 27: 'H.264', 31: 'H.264 SVC', 32: 'H.264 MVC', 33: 'JPEG 2000',
  36: 'HEVC', 51: 'VVC', 66: 'AVS', 129: 'AC-3', 135: 'E-AC-3', 209: 'Dirac', 234: 'VC-1'};
const codec = stream => `${CODECS[stream.type] || 'stream type ' + stream.type} (PID ${stream.pid})`;

const COLUMNS = ['viewer', 'state', 'last minute', 'Mbit/s', 'sent', 'received', 'lost', 'delay p50, p99', ''];
// Seconds in a plot; who has lost in the last of them is losing.
const MINUTE = 60, LOSING = 5;

let relay = '', last = null;
const rows = new Map();

for (const name of COLUMNS) {
  const th = make('th', name);
  th.scope = 'col';
  th.dataset.name = name;
  th.setAttribute('role', 'columnheader');
  $('viewers').tHead.rows[0].append(th);
}

const act = (who, action) => post(`/viewers/${who}/${action}`, $('token').value || token(), $('said'));
const button = (text, press) => {
  const element = make('button', text);
  element.type = 'button';
  element.addEventListener('click', press);
  return element;
};
$('pause').addEventListener('click', () => act('all', 'pause'));
$('resume').addEventListener('click', () => act('all', 'resume'));
$('act').addEventListener('submit', event => event.preventDefault());
$('token').hidden = token() !== '';

function makeRow(number) {
  const row = {tr: make('tr'), cells: {}, samples: []};
  row.tr.setAttribute('role', 'row');
  for (const name of COLUMNS) {
    const td = make('td');
    td.dataset.name = name;
    td.setAttribute('role', 'cell');
    row.cells[name] = td;
    row.tr.append(td);
  }
  row.name = make('span');
  row.to = make('small');
  row.cells.viewer.append(row.name, row.to);
  row.plot = make('canvas');
  row.plot.setAttribute('role', 'img');
  row.plot.width = MINUTE * 3;
  row.plot.height = 33;
  row.cells['last minute'].append(row.plot);
  row.toggle = button('Pause', () => act(number, row.paused ? 'resume' : 'pause'));
  row.leave = button('Let go', () => act(number, 'leave'));
  row.leave.setAttribute('aria-label', `Let viewer ${number} go`);
  row.cells[''].append(row.toggle, row.leave);
  $('viewers').tBodies[0].append(row.tr);
  rows.set(number, row);
  return row;
}

// What a viewer lost since the sample before, and what it got.
function sample(row, v, seconds) {
  const before = row.samples[row.samples.length - 1];
  // What is on its way when a viewer tells is no loss: of some reports the least is.
  row.nets = [...row.nets || [], v.network_lost_at_most].filter(given).slice(-LOSING);
  const network = row.nets.length ? Math.min(...row.nets) : null;
  const lost = v.sent.dropped + (network || 0) + (v.received && v.received.host_drop || 0);
  const now = {seconds, bytes: v.sent.bytes, sent: v.sent.datagrams, lost, paused: v.standing === 'paused', mbit: null, gone: 0, share: 0};
  if (before && seconds > before.seconds) {
    now.mbit = (now.bytes - before.bytes) * 8e-6 / (seconds - before.seconds);
    now.gone = Math.max(0, lost - before.lost);
    now.share = now.gone / Math.max(1, now.gone + now.sent - before.sent);
  }
  row.samples.push(now);
  while (row.samples[0].seconds < seconds - MINUTE) row.samples.shift();
  return {...now, network};
}

function draw(row, number, seconds, top) {
  const style = getComputedStyle(document.documentElement);
  const [live, bad, soft] = ['--live', '--bad', '--soft'].map(name => style.getPropertyValue(name));
  const {width, height} = row.plot;
  const pen = row.plot.getContext('2d');
  pen.clearRect(0, 0, width, height);
  for (const s of row.samples.filter(s => s.mbit !== null)) {
    const x = Math.round(width - (seconds - s.seconds + 1) * width / MINUTE);
    const tall = s.paused ? 2 : Math.max(1, s.mbit / top * height);
    pen.fillStyle = s.paused ? soft : live;
    pen.fillRect(x, height - tall, 3, tall);
    // However little was lost, it is seen.
    const red = s.gone ? Math.max(5, s.share * height) : 0;
    pen.fillStyle = bad;
    pen.fillRect(x, height - Math.max(tall, red), 3, red);
  }
  const lost = row.samples.reduce((sum, s) => sum + s.gone, 0);
  const paused = row.samples.filter(s => s.paused).length;
  row.plot.setAttribute('aria-label', `Viewer ${number}: ${lost} datagrams lost in the last minute` + (paused ? `, paused for ${paused} s` : ''));
}

function viewer(v, seconds) {
  const row = rows.get(v.viewer) || makeRow(v.viewer);
  const now = sample(row, v, seconds);
  const cells = row.cells;
  const losing = row.samples.slice(-LOSING).some(s => s.gone);
  row.paused = now.paused;
  set(row.name, v.viewer + (v.name ? ' ' + safe(v.name) : ''));
  set(row.to, safe(v.to) + (v.native ? '' : ', does not tell'));
  set(cells.state, (v.standing === 'out' ? 'leaving' : now.paused ? 'paused' : losing ? 'LOSING' : v.standing === 'group' ? 'by the group' : 'playing') + (v.input ? `, input ${v.input}` : ''));
  cells.state.className = losing && !now.paused ? 'bad' : now.paused ? '' : 'good';
  set(cells['Mbit/s'], now.mbit === null ? '-' : now.mbit.toFixed(2));
  set(cells.sent, v.sent.datagrams.toLocaleString('en-US'));
  set(cells.received, v.received ? v.received.datagrams.toLocaleString('en-US') : '-');
  const places = [[v.sent.dropped, 'dropped by the relay'], [now.network, 'lost by the network'],
    [v.received && v.received.host_drop, 'dropped by its host'], [v.sent.source_cc_errors, 'CC errors before the relay'],
    [v.sent.paused, 'passed in pauses'], [v.input_changes, v.input_changes === 1 ? 'change of input' : 'changes of input']];
  set(cells.lost, places.filter(([many]) => many > 0).map(([many, where]) => `${many.toLocaleString('en-US')} ${where}`).join(', ') || '0');
  cells.lost.className = now.lost ? 'bad' : '';
  set(cells['delay p50, p99'], given(v.sent.delay_p50_us) ? [v.sent.delay_p50_us, v.sent.delay_p99_us].map(us => (us / 1e3).toFixed(2)).join(', ') + ' ms' : '-');
  set(row.toggle, now.paused ? 'Resume' : 'Pause');
  // What the group gets comes to all of its viewers.
  row.toggle.disabled = v.standing === 'group';
  row.toggle.setAttribute('aria-label', `${row.toggle.textContent} viewer ${v.viewer}`);
}

function state(d) {
  if (relay !== d.relay) {
    rows.forEach(row => row.tr.remove());
    rows.clear();
    [relay, last] = [d.relay, null];
  }
  for (const [number, row] of rows)
    if (!d.viewers.some(v => v.viewer === number)) { row.tr.remove(); rows.delete(number); }
  d.viewers.forEach(v => viewer(v, d.seconds));
  const top = Math.max(1e-3, ...[...rows.values()].flatMap(row => row.samples.map(s => s.mbit || 0)));
  rows.forEach((row, number) => draw(row, number, d.seconds, top));
  const since = (now, before) => last && d.seconds > last.seconds ? (now.bytes - before.bytes) * 8e-6 / (d.seconds - last.seconds) : null;
  const came = since(d.input, last && last.input);
  const lower = d.lower_inputs.map((input, n) => [rate(since(input, last && last.lower_inputs[n])), `input ${n + 2}`]);
  last = d;
  const silent = d.awake && came === 0;
  set($('title'), !d.viewers.length ? 'Nobody watches, and nothing is read' : !d.awake ? 'All are paused, and nothing is read'
    : silent ? 'Nothing comes from the source' : `Relaying to ${count(d.viewers.length, 'viewer')}`);
  $('title').className = silent ? 'bad' : d.awake ? 'good' : 'wait';
  document.title = (silent ? 'NO SOURCE - ' : d.viewers.length + ' - ') + 'gatecast relay';
  const some = (many, ...rest) => [many ? many.toLocaleString('en-US') : '-', ...rest];
  figures($('figures'), [[d.awake ? rate(came) : '-', 'source'], ...lower, [String(d.input.cc_errors), 'CC errors of the source', d.input.cc_errors ? 'bad' : ''],
    some(d.input.rtp_lost, 'lost by RTP', 'bad'), some(d.dropped, 'dropped unread', 'bad'), some(d.foreign, 'of a second sender', 'bad'),
    [given(d.input.jitter_us) ? us(Math.round(d.input.jitter_us)) : '-', 'jitter'],
    [us(d.delay_p50_us), 'delay p50'], [us(d.delay_p99_us), 'delay p99']]);
  set($('streams'), d.streams.map(codec).join(', '));
  $('pause').disabled = !d.viewers.some(v => v.standing === 'running');
  $('resume').disabled = !d.viewers.some(v => v.standing === 'paused');
  show($('viewers').parentElement, d.viewers.length > 0);
  hint();
}

// A table that is wider than its place says so above itself.
function hint() {
  const box = $('viewers').parentElement;
  show(box.previousElementSibling, box.scrollWidth > box.clientWidth);
}
addEventListener('resize', hint);

set($('where'), location.host);
set($('how'), `Players open http://${location.host}/live.ts; ours is: gatecast watch ${location.host}`);
const source = new EventSource(at('/events'));
source.addEventListener('open', () => link('live', 'live'));
source.addEventListener('error', () => link('the relay does not answer', 'lost'));
source.addEventListener('state', event => state(JSON.parse(event.data)));
