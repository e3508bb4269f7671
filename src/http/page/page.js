const left = s => !isFinite(s) ? '' : s < 90 ? Math.ceil(s) + ' s' : Math.ceil(s / 60) + ' min';
const quote = text => /^[\w.\/:@%+-]+$/.test(text) ? text : "'" + text.replace(/'/g, "'\\''") + "'";
const path = name => encodeURIComponent(name).replace(/[!'()*]/g, c => '%' + c.charCodeAt(0).toString(16).toUpperCase());
// On the server's own machine the page is asked for at an address that clients cannot use.
const address = () => /^(localhost|127\.|\[::1\])/.test(location.hostname) && server.address || location.host;
// With -f curl stores no file where the answer is that the muster failed.
const commands = (name, group, via) => {
  const plain = path(name) === name;
  const gate = group === null ? '?gate' : '?gate=' + group;
  const url = `'http://${address()}/files/${path(name)}${gate}'`;
  const native = 'gatecast fetch ' + address() + (group === null ? '' : ' --group ' + group) + (name[0] === '-' ? ' -- ' : ' ') + quote(name);
  if (given(via) && via !== 'tcp' && via !== 'http') return [native];
  return [native, plain ? 'curl -fO ' + url : 'curl -fo ' + quote((name[0] === '-' ? './' : '') + name) + ' ' + url];
};
const code = text => make('code', text, 'command');

let server = {clients: null};
let files = [];
let verdict = '';
const panels = new Map();

function release(session, panel) {
  const word = panel.token.value || token();
  panel.button.disabled = true;
  post('/sessions/' + session + '/release', word, panel.said)
    .finally(() => { panel.asked = true; panel.button.disabled = false; });
}

function makePanel(session) {
  const panel = {root: make('section'), rows: new Map(), samples: new Map(), asked: false};
  panel.title = make('h2');
  panel.title.setAttribute('role', 'status');
  panel.what = make('span');
  panel.why = make('span', undefined, 'why');
  panel.title.append(panel.what, ' ', panel.why);
  panel.figures = make('p', undefined, 'figures');
  panel.whole = make('div');
  panel.bar = make('progress');
  panel.bar.setAttribute('aria-label', 'All clients');
  panel.whole.append(panel.bar);
  panel.act = make('form', undefined, 'act');
  panel.button = make('button');
  panel.button.type = 'submit';
  panel.token = make('input');
  panel.token.type = 'password';
  panel.token.autocomplete = 'off';
  panel.token.placeholder = 'token that the server printed';
  panel.token.setAttribute('aria-label', 'Token');
  panel.token.hidden = token() !== '';
  panel.said = make('span');
  panel.said.setAttribute('role', 'status');
  panel.act.append(panel.button, panel.token, panel.said);
  panel.act.addEventListener('submit', event => { event.preventDefault(); release(session, panel); });
  panel.how = make('div');
  panel.list = make('ul');
  panel.root.append(panel.title, panel.figures, panel.whole, panel.act, panel.list, panel.how);
  $('open').append(panel.root);
  return panel;
}

// Numbers in order, with the runs among them as ranges: 3, 7-25.
function ranges(numbers) {
  const runs = [];
  for (const number of numbers) {
    const run = runs[runs.length - 1];
    if (run && run[1] + 1 === number) run[1] = number; else runs.push([number, number]);
  }
  return runs.map(([first, last]) => first === last ? first : first + '-' + last).join(', ');
}
const NAMES_MAX = 20;
const someOf = names => names.slice(0, NAMES_MAX).map(safe).join(', ') + (names.length > NAMES_MAX ? ` and ${names.length - NAMES_MAX} more` : '');
// Each reason once, the most frequent first, with how many have it. Reasons that differ in numbers
// only are one, without those numbers.
function reasons(ends, alone) {
  const groups = new Map();
  for (const {reason, outcome} of ends) {
    const parts = safe(reason || outcome.replace('_', ' ')).split(/(\d+)/);
    const key = parts.filter((_, at) => at % 2 === 0).join('0');
    const group = groups.get(key) || {parts, number: 0};
    groups.set(key, group);
    group.number++;
    group.parts = group.parts.map((part, at) => part === parts[at] ? part : '\u2026');
  }
  const list = [...groups.values()].sort((a, b) => b.number - a.number);
  if (alone && list.length === 1) return [list[0].parts.join('')];
  const said = list.slice(0, 3).map(group => `${count(group.number, 'client')}: ${group.parts.join('')}`);
  if (list.length > 3) said.push(count(list.length - 3, 'other reason'));
  return said;
}
const failed = end => given(end.outcome) && end.outcome !== 'complete';
// How far a copy is, percent; the last one is the digest's.
const far = (bytes, total) => total ? Math.min(100, Math.floor(bytes / total * 100)) : 100;

function row(panel, seat, build) {
  let entry = panel.rows.get(seat);
  if (!entry) {
    entry = {li: make('li'), name: make('span', undefined, 'name'), small: make('small')};
    build(entry);
    panel.rows.set(seat, entry);
    panel.list.append(entry.li);
  }
  return entry;
}

function musterPanel(panel, s) {
  const ready = s.seats.filter(seat => seat.ready).length;
  const missing = s.clients - s.seats.length;
  set(panel.what, `${ready} of ${s.clients} ready for ${safe(s.file.name)}`);
  panel.whole.className = 'whole';
  document.title = `${ready}/${s.clients} ready - gatecast`;
  figures(panel.figures, [[bytes(s.file.bytes), 'file size'], [s.via, 'way'], [String(missing), 'missing'],
    [given(s.seconds_left) ? left(s.seconds_left) : '-', 'left to wait']]);
  panel.bar.max = s.clients;
  panel.bar.value = ready;
  set(panel.button, ready === s.clients ? 'Releasing' : ready === 0 ? 'Nobody is ready' : `Release the ${ready} that ${ready === 1 ? 'is' : 'are'} ready`);
  panel.button.disabled = ready === 0;
  show(panel.act, true);
  panel.list.className = s.clients > 60 ? 'seats many' : 'seats';
  const taken = new Map(s.seats.map(seat => [seat.seat, seat]));
  // With a roster each seat has a name, whoever sits there.
  const absent = new Map((s.missing || []).map(seat => [seat.seat, seat.name]));
  set(panel.why, absent.size ? 'Missing: ' + someOf([...absent.values()]) : '');
  for (let number = 1; number <= s.clients; number++) {
    const seat = taken.get(number);
    const entry = row(panel, number, entry => entry.li.append(entry.name, entry.small));
    entry.li.className = !seat ? 'missing' : seat.ready ? 'ready' : '';
    const name = seat ? seat.name : absent.get(number);
    set(entry.name, given(name) ? `${number} ${safe(name)}` : `${number} missing`);
    set(entry.small, seat ? `${seat.ready ? 'ready' : 'not ready'}, ${seat.kind}, ${safe(seat.client)}` : given(name) ? 'missing' : '\u00a0');
    if (seat) { entry.name.title = safe(seat.name); entry.small.title = entry.small.textContent; }
  }
  if (!panel.how.firstChild) {
    panel.how.append(make('h3', 'On a client that is missing, type one of these'));
    for (const text of commands(s.file.name, given(server.clients) ? null : s.clients, s.via)) panel.how.append(code(text));
  }
  show(panel.how, missing > 0);
}

const shades = () => {
  const style = getComputedStyle(document.documentElement);
  return [style.getPropertyValue('--empty'), style.getPropertyValue('--live'), style.getPropertyValue('--good')];
};
// The pieces of the file in a row: what has arrived of each; for UDP the holes are where it is pale.
function drawMap(canvas, map) {
  if (canvas.width !== map.length) { canvas.width = map.length; canvas.height = 1; }
  const [empty, live, good] = shades();
  const pen = canvas.getContext('2d');
  map.forEach((percent, at) => {
    pen.fillStyle = empty;
    pen.fillRect(at, 0, 1, 1);
    pen.globalAlpha = percent / 100;
    pen.fillStyle = percent === 100 ? good : live;
    pen.fillRect(at, 0, 1, 1);
    pen.globalAlpha = 1;
  });
}

function bar(entry, total) {
  entry.right = make('span');
  entry.top = make('span', undefined, 'top');
  entry.top.append(entry.name, entry.right);
  entry.bar = make('progress');
  entry.bar.max = Math.max(total, 1);
  entry.li.append(entry.top, entry.bar, entry.small);
}

function movingPanel(panel, s) {
  if (panel.phase !== 'moving') { panel.list.replaceChildren(); panel.rows.clear(); }
  const total = s.file.bytes;
  const ends = s.seats.filter(failed);
  let moved = 0, done = 0, sum = 0;
  panel.list.className = s.seats.length > 60 ? 'bars many' : 'bars';
  for (const seat of s.seats) {
    const entry = row(panel, seat.seat, entry => bar(entry, total));
    const samples = panel.samples.get(seat.seat) || [];
    panel.samples.set(seat.seat, samples);
    const last = samples[samples.length - 1];
    if (!last || s.seconds_moving > last[0]) samples.push([s.seconds_moving, seat.bytes]);
    if (samples.length > 4) samples.shift();
    const [t0, b0] = samples.length > 1 ? samples[0] : [0, 0];
    const speed = s.seconds_moving > t0 ? (seat.bytes - b0) / (s.seconds_moving - t0) : 0;
    const has = seat.bytes_resumed + seat.bytes;
    const kept = seat.bytes_resumed ? bytes(seat.bytes_resumed) + ' kept' : '';
    const stopped = failed(seat);
    moved += has;
    if (!seat.finished) sum += speed; else if (!stopped) done++;
    set(entry.name, `${seat.seat} ${safe(seat.name)}`);
    entry.name.title = safe(seat.name);
    entry.bar.value = has;
    entry.bar.setAttribute('aria-label', `Seat ${seat.seat}`);
    set(entry.right, stopped ? `failed at ${far(has, total)} %` : !seat.finished ? far(has, total) + ' %'
      : seat.verified ? 'proven' : 'not proven');
    entry.li.className = stopped ? 'failed' : seat.finished && seat.verified ? 'done' : '';
    // Nobody's first tenths of a second say how long the rest takes.
    const rest = s.seconds_moving < 0.5 ? '' : left((total - has) / speed);
    const pace = has < total ? [rate(speed * 8 / 1e6), rest && rest + ' left'] : ['all sent, not proven yet'];
    set(entry.small, (stopped ? [safe(seat.reason || seat.outcome)] : seat.finished ? [bytes(seat.bytes), kept]
      : [...pace, kept, given(seat.lost) ? seat.lost + ' lost' : ''])
      .filter(Boolean).join(', '));
    if (seat.map && seat.map.length) {
      if (!entry.map) {
        entry.map = make('canvas');
        entry.map.setAttribute('role', 'img');
        entry.li.append(entry.map);
      }
      entry.map.setAttribute('aria-label', `Seat ${seat.seat}: ${seat.map.filter(p => p === 100).length} of ${seat.map.length} pieces whole`);
      drawMap(entry.map, seat.map);
    }
  }
  set(panel.what, `Sending ${safe(s.file.name)} to ${s.seats.length}` + (ends.length ? `, ${ends.length} FAILED` : ''));
  set(panel.why, reasons(ends).join('; '));
  panel.title.className = ends.length ? 'bad' : '';
  panel.whole.className = ends.length ? 'whole failed' : 'whole';
  const all = total * s.seats.length;
  document.title = `${all ? Math.floor(moved / all * 100) : 100} % - gatecast`;
  figures(panel.figures, [[`${done} of ${s.seats.length}`, 'done'], [ends.length ? String(ends.length) : '-', 'failed', 'bad'],
    [seconds(s.seconds_moving), 'since the release'], [rate(sum * 8 / 1e6), 'all together'], [s.via, 'way']]);
  panel.bar.max = Math.max(all, 1);
  panel.bar.value = moved;
  show(panel.act, false);
  show(panel.how, false);
}

// How many clients a session is tried with where nobody has said how many.
const EXAMPLE = 25;

function offer() {
  const group = given(server.clients) ? null : EXAMPLE;
  const key = JSON.stringify([files, server]);
  if ($('offers').dataset.key === key) return;
  $('offers').dataset.key = key;
  const clients = server.clients;
  set($('idle-title'), 'Waiting for ' + (given(clients) ? count(clients, 'client') : 'the first client') + ': nobody is at the gate');
  set($('idle-text'), (!given(clients) ? `The first client that asks for a file says how many clients get it together, here ${EXAMPLE}. `
    : clients === 1 ? 'A client that asks for a file gets it at once. '
      : `A file is sent to all when ${clients} clients have asked for it. `)
    + `On ${clients === 1 ? 'the' : 'each'} client's machine, type one of these:`);
  $('offers').replaceChildren(...files.slice(0, 50).map(file => {
    const div = make('div');
    div.append(make('h3', `${safe(file.name)}, ${bytes(file.bytes)}`), ...commands(file.name, group, server.via).map(code));
    return div;
  }));
  if (files.length > 50) {
    const more = make('a', `and ${files.length - 50} more`);
    more.href = '/files';
    $('offers').append(more);
  }
}

function state(s) {
  server = s.server;
  const open = s.sessions.filter(session => session.phase !== 'ending');
  for (const [id, panel] of panels)
    if (!open.some(session => session.session === id)) { panel.root.remove(); panels.delete(id); }
  for (const session of open) {
    let panel = panels.get(session.session);
    if (!panel) { panel = makePanel(session.session); panels.set(session.session, panel); }
    (session.phase === 'muster' ? musterPanel : movingPanel)(panel, session);
    panel.phase = session.phase;
  }
  show($('idle'), open.length === 0);
  if (open.length === 0) { document.title = verdict + 'gatecast'; offer(); }
}

// In the order of the terminal's table and of the CSV.
const COLUMNS = [['seat', r => r.seat], ['verified', r => r.verified], ['bytes client', r => r.bytes_client],
  ['bytes kept', r => r.bytes_resumed || null], ['time client', r => r.seconds_client],
  ['Mbit/s client', r => r.rate_client_mbit], ['address', r => r.client], ['client port', r => port(r.client)],
  ['bytes server', r => r.bytes_server], ['time server', r => r.seconds_server],
  ['Mbit/s server', r => r.rate_server_mbit], ['server port', r => port(r.server)],
  ['client', r => safe(r.name)], ['outcome', r => r.outcome]];
// What a narrow window leaves out, in this order; CSV and JSON have all.
const LEFT_OUT = ['server port', 'Mbit/s server', 'time server', 'client port', 'address', 'bytes server', 'bytes kept'];
const port = address => given(address) ? address.slice(address.lastIndexOf(':') + 1) : null;
const host = address => given(address) ? address.slice(0, address.lastIndexOf(':')) : null;

function cell(name, value, result) {
  const td = make('td');
  td.dataset.name = name;
  td.setAttribute('role', 'cell');
  if (name === 'verified') {
    td.textContent = value === true ? 'yes' : value === false ? 'NO' : '-';
    td.className = value === true ? 'good' : value === false ? 'bad' : '';
  } else if (name === 'outcome') {
    td.textContent = value.replace('_', ' ') + (result.reason ? ': ' + safe(result.reason) : '');
    td.className = value === 'complete' ? '' : 'bad';
  } else if (!given(value)) td.textContent = '-';
  else if (name === 'address') td.textContent = host(value);
  else if (name.startsWith('time')) td.textContent = value.toFixed(value < 0.1 ? 6 : 3) + ' s';
  else if (name.startsWith('Mbit')) td.textContent = value.toFixed(1);
  else if (name.startsWith('bytes')) td.textContent = value.toLocaleString('en-US');
  else td.textContent = value;
  // A dash keeps its column in line; on a narrow screen, where there are none, it is left out.
  if (td.textContent === '-') td.className = 'none';
  return td;
}
// A column that nobody has a value for is left out.
function table(results) {
  const columns = COLUMNS.filter(([, read]) => results.some(result => given(read(result))));
  const head = make('thead'), body = make('tbody'), line = make('tr');
  for (const [name] of columns) {
    const th = make('th', name);
    th.scope = 'col';
    th.dataset.name = name;
    th.setAttribute('role', 'columnheader');
    line.append(th);
  }
  head.append(line);
  for (const result of results) {
    const tr = make('tr');
    tr.append(...columns.map(([name, read]) => cell(name, read(result), result)));
    body.append(tr);
  }
  for (const tr of [line, ...body.children]) tr.setAttribute('role', 'row');
  $('after-table').replaceChildren(head, body);
}

function leaveOut(box) {
  const cells = [...box.querySelectorAll('[data-name]')];
  for (const cell of cells) cell.hidden = false;
  for (const name of LEFT_OUT) {
    if (box.scrollWidth <= box.clientWidth) return;
    for (const cell of cells.filter(cell => cell.dataset.name === name)) cell.hidden = true;
  }
}

// Why fewer copies are proven than were asked for, and whose failed after the release.
function shortfall(d) {
  const proves = r => r.outcome === 'complete' && r.verified === true;
  const proven = d.results.filter(proves).length;
  if (proven >= d.clients) return {proven, kind: 'good', why: [], moved: []};
  // A seat that was lost before the release may have gone to another client since.
  const moved = d.results.filter(r => given(d.release.at) && (given(r.woke_us) || r.outcome === 'cut'));
  const held = new Set(moved.map(r => r.seat));
  const unseated = d.results.filter(r => failed(r) && !moved.includes(r) && !held.has(r.seat));
  // Whom a roster names and who did not come: nobody was there to have an address.
  const absent = unseated.filter(r => !given(r.client) && r.reason === 'did not come');
  const lost = unseated.filter(r => !absent.includes(r));
  const taken = new Set(d.results.map(r => r.seat));
  const empty = [];
  for (let seat = 1; seat <= d.clients; seat++) if (!taken.has(seat)) empty.push(seat);
  const why = reasons([...moved.filter(failed), ...lost], !given(d.release.at));
  if (absent.length) why.push(`${count(absent.length, 'client')} missing: ${someOf(absent.map(r => r.name))}`);
  if (empty.length) why.push(`${count(empty.length, 'client')} missing (${empty.length === 1 ? 'seat' : 'seats'} ${ranges(empty)})`);
  const kind = why.length ? 'bad' : 'wait';
  const unproven = d.results.filter(r => r.outcome === 'complete' && !proves(r)).length;
  if (unproven) why.push(count(unproven, 'client') + ' got all bytes and cannot prove the copy');
  return {proven, kind, why, moved: moved.filter(failed)};
}

const BARS_MAX = 60;
// Who failed after the release, and how far each copy was.
function failures(d, results) {
  const list = results.slice(0, BARS_MAX).map(r => {
    const entry = {li: make('li', undefined, 'failed'), name: make('span', `${r.seat} ${safe(r.name)}`, 'name'), small: make('small')};
    const has = r.bytes_resumed + (given(r.bytes_client) ? r.bytes_client : r.bytes_server || 0);
    bar(entry, d.file.bytes);
    entry.bar.value = has;
    entry.bar.setAttribute('aria-label', `Seat ${r.seat}`);
    entry.right.textContent = `failed at ${far(has, d.file.bytes)} %`;
    entry.small.textContent = `${bytes(has)} of ${bytes(d.file.bytes)}: ` + safe(r.reason || r.outcome);
    return entry.li;
  });
  if (results.length > BARS_MAX) list.push(make('li', `and ${results.length - BARS_MAX} more in the table`));
  $('after-failed').replaceChildren(...list);
  show($('after-failed'), list.length > 0);
}

// One number of clients is one point, and no plot. Sessions that failed have none.
function plot(d) {
  fetch(at('/sessions')).then(answer => answer.json()).then(kept => {
    const points = new Set(kept.sessions.filter(s => s.complete >= s.clients).map(s => s.clients));
    show($('plot'), points.size > 1);
    if (points.size > 1) $('plot').querySelector('img').src = at('/plot.svg?' + d.session);
  }).catch(() => {});
}

// How the way was chosen: what was measured before the release, and what each way would have taken by it.
function choice(d) {
  if (!given(d.auto)) return [];
  const {measured: m, predicted_s: p, why} = d.auto;
  const links = [[m.server_up_bit_s, 'server up'], [m.least_down_bit_s, 'least down'], [m.group_bit_s, 'group']]
    .filter(([bits]) => given(bits)).map(([bits, what]) => `${what} ${rate(bits / 1e6)}`);
  const ways = Object.entries(p).filter(([, s]) => given(s)).map(([via, s]) => `${via} ${seconds(s)}`);
  const said = [['Measured', links], ['predicted', ways]].filter(([, what]) => what.length)
    .map(([word, what]) => `${word}: ${what.join(', ')}; `);
  return [make('li', `${said.join('')}chosen: ${d.via}${why ? ` (${safe(why)})` : ''}`)];
}

// Why seats were slow, a line each; neighbours that wait for the same thing share one.
function slow(d) {
  const lines = [];
  for (const r of d.results.filter(r => r.why)) {
    const last = lines[lines.length - 1];
    if (last && last.why.cause === r.why.cause && ['rate', 'uplink', 'peer_uplinks'].includes(r.why.cause)) last.to = r.seat;
    else lines.push({from: r.seat, to: r.seat, why: r.why});
  }
  const items = lines.slice(0, BARS_MAX).map(l => make('li',
    `${l.from === l.to ? `Seat ${l.from}` : `Seats ${l.from} to ${l.to}`}: ${safe(l.why.sentence)}`));
  if (lines.length > BARS_MAX) items.push(make('li', `and ${lines.length - BARS_MAX} more`));
  if (d.advice) items.push(make('li', 'To be faster: ' + safe(d.advice)));
  const all = [...choice(d), ...items];
  $('after-slow').replaceChildren(...all);
  show($('after-slow'), all.length > 0);
}

function ended(event) {
  const d = event.document;
  const {proven, kind, why, moved} = shortfall(d);
  const word = {good: '', wait: 'NOT PROVEN: ', bad: 'FAILED: '}[kind];
  verdict = `${word}${proven}/${d.clients} - `;
  if (!$('idle').hidden) document.title = verdict + 'gatecast';
  const invalid = d.identities !== 'hold';
  $('after-title').className = invalid ? 'bad' : kind;
  $('after-title').replaceChildren(make('span', `${word}${proven} of ${d.clients} copies of ${safe(d.file.name)} are proven`),
    ' ', make('span', why.join('; '), 'why'));
  failures(d, moved);
  figures($('after-global'), [[rate(d.global.rate_mbit), 'global rate'], [seconds(d.global.seconds), 'release to last byte'],
    [us(d.release.skew_us), 'release skew'], [us(d.release.skew_client_us), 'skew at the clients'], [bytes(d.file.bytes), 'file size'], [d.via, 'way'],
    ...(given(d.auto) ? [[seconds(d.auto.predicted_s[d.via]), 'predicted']] : [])]);
  set($('after-notes'), invalid ? 'INVALID: ' + d.identities.map(safe).join('; ') : '');
  slow(d);
  $('after-notes').className = invalid ? 'bad' : '';
  table(d.results);
  const link = (text, href) => { const a = make('a', text); a.href = at(href); return a; };
  $('after-links').replaceChildren(link('CSV', `/sessions/${d.session}.csv`), link('JSON', '/sessions/' + d.session),
    link('all sessions as CSV', '/sessions.csv'));
  plot(d);
  show($('after'), true);
}

// A box that is wider than its place says so above itself.
const widths = new ResizeObserver(() => {
  leaveOut($('after-table').parentElement);
  for (const box of document.querySelectorAll('.scroll')) show(box.previousElementSibling, box.scrollWidth > box.clientWidth);
});
for (const box of document.querySelectorAll('.scroll')) { widths.observe(box); widths.observe(box.firstElementChild); }

set($('where'), location.host);
const source = new EventSource(at('/events'));
source.addEventListener('open', () => link('live', 'live'));
source.addEventListener('error', () => link('the server does not answer', 'lost'));
source.addEventListener('state', event => state(JSON.parse(event.data)));
source.addEventListener('session', event => ended(JSON.parse(event.data)));
fetch('/files', {headers: {Accept: 'application/json'}}).then(answer => answer.json())
  .then(list => { files = list.files; if (!$('idle').hidden) offer(); }).catch(() => {});
