// JupyterLab's extension of this image: "VS Code" in the launcher and the file browser's menu, how full the home is,
// and a notice before the server is stopped for its age.
//
// A module-federation container written by hand, so that it needs no build: JupyterLab calls init() with the modules
// that it shares and get() for our plugins. Anything else would have to come from a bundler.
'use strict';

(() => {
  const ICON =
    '<svg xmlns="http://www.w3.org/2000/svg" width="16" viewBox="0 0 24 24">' +
    '<rect x="2" y="3" width="20" height="18" rx="3" fill="#1f6feb"/>' +
    '<path d="M9.5 8 5.5 12l4 4M14.5 8l4 4-4 4" fill="none" stroke="#fff" stroke-width="2" ' +
    'stroke-linecap="round" stroke-linejoin="round"/></svg>';

  // `home` is what jhok_home.py answers. Of a notice JupyterLab shows 140 characters.
  const TEXTS = {
    en: {
      open: 'Open in VS Code',
      caption: 'Edit the files of this directory in VS Code, in a new tab',
      stop: (time, minutes) =>
        `At ${time} (in ${minutes} min) this server reaches its maximum age and stops. Save your work: programs end, ` +
        'files stay. You can start it again.',
      home: ({ shared, used, limit }) => `${shared ? `Home of ${shared}` : 'Home'}: ${used} of ${limit} GB`,
      levels: { nearly: ', nearly full', full: ', full' },
      whose: ({ shared }) => (shared ? `The home of ${shared}` : 'Your home'),
      advice: (whose, { limit, largest }) =>
        `${whose} may hold ${limit} GB. When it is full, nothing can be saved. What is large, in a terminal: ` +
        largest,
      notices: {
        nearly: (whose, { largest }) =>
          `${whose} is nearly full. Please make room. What is large, in a terminal:\n${largest}`,
        full: (whose, { largest }) =>
          `${whose} is full. To save again, make room. What is large, in a terminal:\n${largest}`
      }
    },
    zh: {
      open: '用 VS Code 打开',
      caption: '在新标签页中用 VS Code 编辑此目录中的文件',
      stop: (time, minutes) =>
        `此环境将在 ${time}（${minutes} 分钟后）停止，因为它已达到允许的最长运行时间。请保存您的工作。` +
        'home 目录中的文件会保留；正在运行的程序、notebook 和终端会结束。之后可以立即启动新的环境。',
      home: ({ shared, used, limit }) => `${shared ? `${shared} 的` : ''}个人目录：已用 ${used} / ${limit} GB`,
      levels: { nearly: '，快满了', full: '，已满' },
      whose: ({ shared }) => `${shared ? `${shared} ` : '您'}的个人目录`,
      advice: (whose, { limit, largest }) =>
        `${whose}最多可用 ${limit} GB，用满后无法再保存任何内容。在终端中查看哪些内容占用空间最多：${largest}`,
      notices: {
        nearly: (whose, { largest }) => `${whose}快满了，请删除不再需要的文件。在终端中查看哪些内容占用空间最多：\n${largest}`,
        full: (whose, { largest }) => `${whose}已满，删除一些文件后才能继续保存。在终端中查看哪些内容占用空间最多：\n${largest}`
      }
    }
  };
  const COLOURS = {
    '': { background: '', color: '' },
    nearly: { background: '#ffb74d', color: '#000' },
    full: { background: '#d32f2f', color: '#fff' }
  };
  const texts = navigator.language.startsWith('zh') ? TEXTS.zh : TEXTS.en;

  let scope;

  /** Return a module that JupyterLab shares. */
  async function shared(name) {
    const [version] = Object.values(scope[name]);
    return (await version.get())();
  }

  async function plugins() {
    const { PageConfig, URLExt } = await shared('@jupyterlab/coreutils');
    const { ICommandPalette, Notification } = await shared('@jupyterlab/apputils');
    const { IDefaultFileBrowser } = await shared('@jupyterlab/filebrowser');
    const { ILauncher } = await shared('@jupyterlab/launcher');
    const { ServerConnection } = await shared('@jupyterlab/services');
    const { IStatusBar } = await shared('@jupyterlab/statusbar');
    const { LabIcon } = await shared('@jupyterlab/ui-components');
    const { Poll } = await shared('@lumino/polling');
    const { Widget } = await shared('@lumino/widgets');

    const vscode = {
      id: '@jhok/lab:vscode',
      description: 'Opens VS Code in the directory that the file browser shows.',
      autoStart: true,
      optional: [ILauncher, IDefaultFileBrowser, ICommandPalette],
      activate: (app, launcher, browser, palette) => {
        const command = 'jhok:vscode';
        const icon = new LabIcon({ name: 'jhok:vscode', svgstr: ICON });
        app.commands.addCommand(command, {
          label: args => (args.menu ? texts.open : 'VS Code'),
          caption: texts.caption,
          icon,
          execute: args => {
            // The launcher says where it is; the menu means a directory that was clicked, or the one on show.
            const clicked = args.menu && browser ? [...browser.selectedItems()][0] : undefined;
            const path = clicked?.type === 'directory' ? clicked.path : (args.cwd ?? browser?.model.path ?? '');
            const folder = URLExt.join(PageConfig.getOption('jhokRoot'), app.serviceManager.contents.localPath(path));
            const url = URLExt.join(PageConfig.getBaseUrl(), 'vscode/') + URLExt.objectToQueryString({ folder });
            window.open(url, '_blank', 'noopener');
          }
        });
        launcher?.add({ command, category: 'Other', rank: 0 });
        palette?.addItem({ command, category: 'Other' });
        app.contextMenu.addItem({ command, args: { menu: true }, selector: '.jp-DirListing-content', rank: 2 });
      }
    };

    const homeStatus = {
      id: '@jhok/lab:home-status',
      description: 'Shows how full the home is, and tells when it is nearly full and when it is full.',
      autoStart: true,
      optional: [IStatusBar],
      activate: (app, statusBar) => {
        const settings = app.serviceManager.serverSettings;
        const url = URLExt.join(settings.baseUrl, 'jhok/home');
        const item = new Widget({ node: document.createElement('span') });
        item.id = 'jhok-home';
        item.addClass('jp-StatusBar-TextItem');
        let home = null; // there is no quota
        let level = '';
        let notice;
        let warned = false;

        const show = () => {
          item.node.textContent = texts.home(home) + (texts.levels[home.level] ?? '');
          item.node.title = texts.advice(texts.whose(home), home);
          Object.assign(item.node.style, COLOURS[home.level]);
          if (statusBar && !item.parent) {
            const isActive = () => home !== null;
            statusBar.registerStatusItem(homeStatus.id, { item, rank: 100, isActive, activeStateChanged: poll.ticked });
          }
        };
        const tell = () => {
          if (notice) {
            Notification.dismiss(notice); // of what is no longer so
            notice = undefined;
          }
          // A home whose size goes up and down is told to be nearly full once.
          if (level === 'full' || (level && !warned)) {
            const type = level === 'full' ? 'error' : 'warning';
            notice = Notification.emit(texts.notices[level](texts.whose(home), home), type, { autoClose: false });
            warned = true;
          }
        };
        const poll = new Poll({
          name: homeStatus.id,
          auto: false,
          frequency: { interval: 60_000, max: 600_000 },
          standby: 'when-hidden',
          factory: async () => {
            const response = await ServerConnection.makeRequest(url, {}, settings);
            if (!response.ok) {
              throw await ServerConnection.ResponseError.create(response);
            }
            home = await response.json();
            if (home) {
              show();
            }
            if (level !== (home?.level ?? '')) {
              level = home?.level ?? '';
              tell();
            }
          }
        });
        void app.restored.then(() => poll.start()); // before that nobody shows notices
      }
    };

    const stopNotice = {
      id: '@jhok/lab:stop-notice',
      description: 'Tells when the server will be stopped for its age.',
      autoStart: true,
      activate: app => {
        const stop = Date.parse(PageConfig.getOption('jhokStopAt'));
        const warning = Number(PageConfig.getOption('jhokStopWarning')) * 1000;
        // Looked at every minute: a longer timer would sleep along with a closed laptop.
        const look = () => {
          const left = stop - Date.now();
          if (left > warning) {
            setTimeout(look, Math.min(left - warning, 60_000));
            return;
          }
          const time = new Date(stop).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
          const message = texts.stop(time, Math.max(0, Math.ceil(left / 60_000)));
          Notification.warning(message, { autoClose: false });
        };
        if (stop) {
          void app.restored.then(look); // before that nobody shows it
        }
      }
    };

    return [vscode, homeStatus, stopNotice];
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB['@jhok/lab'] = {
    init: sharedScope => {
      scope = sharedScope;
    },
    get: async () => {
      const module = { __esModule: true, default: await plugins() };
      return () => module;
    }
  };
})();
