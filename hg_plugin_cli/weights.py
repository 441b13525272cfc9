"""List the trained networks that the package carries."""


def run(args):
    from hg_plugin.utils.weights import shipped_networks

    for name, network in shipped_networks().items():
        print(f'{name}\n  {network.summary}\n  config      {network.config}')
        print(f'  checkpoint  {network.checkpoint}\n  card        {network.card}')
